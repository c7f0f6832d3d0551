"""Keys over HTTP, for keys with the scope `admin`; and what any key may know of itself."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from ..core.body import json_body
from ..core.caller import caller_of, gateway_of
from ..core.keys import DEFAULT_SCOPES, KeyInfo
from ..core.respond import json_response
from ..core.routing import requires
from ..core.scopes import SCOPES
from . import confine
from .derive import answer
from .queries import ROOT, words


class KeyBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be made."""

    name: str
    user: str = ""
    """Whom it belongs to; without it, whoever asks."""
    scopes: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_SCOPES))
    models: list[str] = []
    """Patterns of model names it may use; none: all."""
    expires_s: float | None = None
    """After how many seconds it ends; without it never."""
    tokens_per_minute: int = 0
    requests_per_minute: int = 0
    concurrent: int = 0
    priority_max: int = 100


def key_routes() -> list[BaseRoute]:
    """Keys and `whoami`."""
    return [
        Route(f"{ROOT}/keys", requires("admin", _list), methods=["GET"]),
        Route(f"{ROOT}/keys", requires("admin", _create), methods=["POST"]),
        Route(f"{ROOT}/keys/{{id}}", requires("admin", _revoke), methods=["DELETE"]),
        Route(f"{ROOT}/whoami", requires("read", whoami), methods=["GET"]),
    ]


async def _list(request: Request) -> ASGIApp:
    """All keys, without their secrets."""
    words(request)
    return json_response(answer([plain(info) for info in gateway_of(request).keys.list()], "", ()))


async def _create(request: Request) -> ASGIApp:
    """Make a key; the answer is the only one that holds it."""
    body = await json_body(request, KeyBody)
    now = time.time()
    text, info = gateway_of(request).keys.create(
        body.name,
        user=body.user or caller_of(request).user,
        scopes=body.scopes,
        models=body.models,
        expires=None if body.expires_s is None else now + body.expires_s,
        tokens_per_minute=body.tokens_per_minute,
        requests_per_minute=body.requests_per_minute,
        concurrent=body.concurrent,
        priority_max=body.priority_max,
        now=now,
    )
    return json_response(answer({"key": text, **plain(info)}, "", ()), 201, {"cache-control": "no-store"})


async def _revoke(request: Request) -> ASGIApp:
    """Revoke a key by its id or name."""
    words(request)
    info = gateway_of(request).keys.revoke(str(request.path_params["id"]))
    return json_response(answer(plain(info), "", ()))


def plain(info: KeyInfo) -> dict[str, Any]:
    """A key as JSON shows it: everything but its secret, which nobody has."""
    fields: dict[str, Any] = msgspec.to_builtins(info)
    return {**fields, "scopes": sorted(info.scopes), "state": info.state(time.time())}


async def whoami(request: Request) -> ASGIApp:
    """Who the caller is, and what it may do."""
    words(request)
    caller = caller_of(request)
    told = {
        "key": caller.key,
        "user": caller.user,
        "scopes": sorted(SCOPES if caller.admin else caller.scopes),
        "models": list(caller.models),
        "limits": caller.limits,
        "home": confine.ME,
        "anonymous": not caller.key,
    }
    return json_response(told)
