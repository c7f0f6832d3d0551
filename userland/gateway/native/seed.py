"""Three short routes, thin forms of calls: `POST /register`, `GET /discover`, `POST /microtune`."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.spec import SYSCALLS

from ..core.body import json_body
from ..core.routing import requires
from . import confine
from .calling import run
from .queries import number, words


class RegisterBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model to be brought into the registry."""

    source: str
    """A path of the namespace, `hf:ORG/NAME[@REVISION]`, or `llmos+http(s)://HOST:PORT/models/NAME`."""
    name: str
    """What it is called: `[ORG/]NAME`."""
    alias: str | UnsetType = UNSET
    licence: str | UnsetType = UNSET
    revision: str | UnsetType = UNSET
    replace: bool | UnsetType = UNSET


class MicrotuneBody(Struct, frozen=True, kw_only=True):
    """A model to be adapted; what is not named here belongs to the recipe (`TuneRecipe`)."""

    model: str
    data: str
    out: str


def routes() -> list[BaseRoute]:
    """The three routes."""
    return [
        Route("/register", requires("manage", _register), methods=["POST"]),
        Route("/discover", requires("read", _discover), methods=["GET"]),
        Route("/microtune", requires("tune", _microtune), methods=["POST"]),
    ]


async def _register(request: Request) -> ASGIApp:
    """Bring a model into the registry; the answer names the task."""
    body = await json_body(request, RegisterBody)
    options = {
        name: value
        for name in ("alias", "licence", "revision", "replace")
        if (value := getattr(body, name)) is not UNSET
    }
    call = {
        "sources": [body.source],
        "out": f"{confine.MODELS}/{body.name}",
        "recipe": {"kind": "import", "options": options},
    }
    return await run(request, SYSCALLS["transform_model"], call, status=202)


async def _discover(request: Request) -> ASGIApp:
    """Search the models."""
    given = words(request)
    filters = {"task": given["task"]} if given.get("task") else {}
    limit = number(given, request, "limit")
    body = {"path": confine.MODELS, "query": given.get("query", ""), "filters": filters, "limit": limit}
    return await run(request, SYSCALLS["search_fs"], body)


async def _microtune(request: Request) -> ASGIApp:
    """Adapt a model to data; the answer names the task."""
    given = await json_body(request, dict[str, Any])
    try:
        body = msgspec.convert({**given}, MicrotuneBody)
    except msgspec.ValidationError as error:
        raise BadArgument(f"microtune: {str(error).replace('`', '')}", name="body") from None
    recipe = {name: value for name, value in given.items() if name not in MicrotuneBody.__struct_fields__}
    call = {"model": body.model, "data": body.data, "out": body.out, "recipe": {"method": "lora", **recipe}}
    return await run(request, SYSCALLS["tune"], call, status=202)
