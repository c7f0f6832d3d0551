"""The GET forms of calls that only read: lists, paths, search, journal, metrics, plans, and *why*."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from llmos.syscalls import calls
from llmos.syscalls.errors import NotDirectory, NotFound
from llmos.syscalls.spec import SYSCALLS
from llmos.syscalls.types import Entry, Kind, Reason
from llmos.userland.async_objects import AsyncSystem
from llmos.userland.why_flows import told_once

from ..core.caller import Caller, caller_of, gateway_of
from ..core.respond import json_response
from ..core.routing import requires
from . import confine
from .asking import ABOUT, known, objects
from .derive import answer
from .calling import run, value_of
from .queries import ROOT, json_word, number, words

_LISTS = {
    "models": Kind.MODEL, "devices": Kind.DEVICE, "drivers": Kind.DRIVER, "tasks": Kind.TASK, "sessions": Kind.SESSION,
}  # fmt: skip
_MOST_RECORDS = 10_000
_SEEN_SHARE = 20
"""A caller who sees only a part of the journal gets what it asks for out of so many times as many records."""


def reading_routes() -> list[BaseRoute]:
    """All GET forms but the live stream and files."""
    made: dict[str, Callable[[Request], Awaitable[ASGIApp]]] = {
        **{name: partial(_objects, kind) for name, kind in _LISTS.items()},
        "stat/{path:path}": _stat,
        "list/{path:path}": _list,
        "search": _search,
        "journal": _journal,
        "metrics": _metrics,
        "plan": _plan,
        "why/{about:path}": _why,
    }
    return [Route(f"{ROOT}/{path}", requires("read", handler), methods=["GET"]) for path, handler in made.items()]


async def _objects(kind: Kind, request: Request) -> ASGIApp:
    """The objects of one kind that the key sees."""
    given = words(request)
    body = {"kind": kind.value, "prefix": given.get("prefix", "")}
    return await run(request, SYSCALLS["list_objects"], body)


def named_path(request: Request) -> str:
    """The path of the namespace in the URL, which stands there without its first slash."""
    return "/" + str(request.path_params["path"])


async def _stat(request: Request) -> ASGIApp:
    """Describe one path."""
    words(request)
    return await run(request, SYSCALLS["stat_path"], {"path": named_path(request)})


async def _list(request: Request) -> ASGIApp:
    """What a folder holds, at most 1000 entries."""
    given = words(request)
    path = named_path(request)
    try:
        return await run(request, SYSCALLS["list_dir"], {"path": path, "after": given.get("after", "")})
    except (NotFound, NotDirectory):
        if path.rstrip("/") != confine.ME:
            raise
        empty: list[Entry] = []  # a folder that comes to be with its first file
        return json_response(answer(empty, "", ()))


async def _search(request: Request) -> ASGIApp:
    """Search below a path, best hits first, each with the reason for its rank."""
    given = words(request)
    body = {
        "path": given.get("path", confine.MODELS),
        "query": given.get("query", ""),
        "filters": json_word(given, "filters"),
        "limit": number(given, request, "limit"),
    }
    return await run(request, SYSCALLS["search_fs"], body)


async def _journal(request: Request) -> ASGIApp:
    """Records of the journal, with filters."""
    given = words(request)
    after, limit = number(given, request, "after"), number(given, request, "limit")
    body = {"after": after, "about": given.get("about", ""), "level": given.get("level", "info"), "limit": limit}
    if caller_of(request).admin:
        return await run(request, SYSCALLS["read_journal"], body)
    system = await gateway_of(request).sessions.system(caller_of(request))
    call = msgspec.convert(
        {**body, "system": system.handle, "limit": min(_MOST_RECORDS, limit * _SEEN_SHARE)}, calls.ReadJournal
    )
    records = await value_of(request, call)
    return json_response(answer(records[-limit:] if after < 0 else records[:limit], "", ()))


async def _metrics(request: Request) -> ASGIApp:
    """Counters, gauges and histograms, by full name with labels."""
    given = words(request)
    return await run(request, SYSCALLS["read_metrics"], {"prefix": given.get("prefix", "")})


async def _plan(request: Request) -> ASGIApp:
    """What loading a model would take, and whether it fits, without loading it."""
    given = words(request)
    options: dict[str, Any] = {"dry_run": True}
    if "dtype" in given:
        options["dtype"] = given["dtype"]
    if "max_context" in given:
        options["max_context"] = number(given, request, "max_context")
    body: dict[str, Any] = {"path": given.get("path", ""), "options": options}
    if given.get("device"):
        body["device"] = given["device"]
    return await run(request, SYSCALLS["load_model"], body)


async def _why(request: Request) -> ASGIApp:
    """What happened to an object or a request under way, and why."""
    words(request)
    caller, about = caller_of(request), str(request.path_params["about"])
    system = await gateway_of(request).sessions.system(caller)
    return json_response(answer(await why(caller, system, about), "", ()))


async def why(caller: Caller, system: AsyncSystem, about: str) -> list[Reason]:
    """What happened to an object or request of that name, id or path, and why.

    Raises:
        NotFound: there is nothing of that name that the caller sees, and nothing was ever said about it.
    """
    name = about if about in await known(caller, system) else await _id_of(caller, system, about)
    found: list[Reason] = []
    if name or caller.admin:
        found = await system.why(name or about)
    if not found and not name:
        found = await _of_request(caller, system, about)
    return found


async def _id_of(caller: Caller, system: AsyncSystem, about: str) -> str:
    """The id of the object at a path: `models/tiny` or `/models/tiny`; empty when there is none."""
    for kind in ABOUT:
        for info in await objects(caller, system, kind):
            if info.fields.get("path", "") in (about, f"/{about}"):
                return info.id
    return ""


async def _of_request(caller: Caller, system: AsyncSystem, about: str) -> list[Reason]:
    """Why a request of the caller waits or runs where it runs, and how it ended."""
    mine = {info.id for info in await objects(caller, system, Kind.SESSION)}
    try:
        text = await system.read(f"/proc/requests/{about}") if "/" not in about else b""
    except (NotFound, NotDirectory):
        text = b""
    told = msgspec.json.decode(text or b"{}")
    records = await system.journal(about=about, level="debug") if about.startswith("r-") else []
    whose = {told.get("session", "")}.union(*(record.fields.get("also", ()) for record in records))
    if not (told or records) or not (caller.admin or whose & mine):
        raise NotFound(f"nothing of this key is called {about[:200]!r}, by name, id or path")
    return told_once(msgspec.convert(told.get("reasons", []), list[Reason]), records)
