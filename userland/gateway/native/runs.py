"""The records of tuning runs, as the key that began them may see them: `/sys/runs` without what is of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from llmos.syscalls.errors import NotFound
from llmos.userland.async_objects import AsyncSystem

from ..core.caller import Caller, caller_of, gateway_of
from ..core.respond import json_response
from ..core.routing import requires
from . import confine
from .derive import answer
from .queries import ROOT, words

FOLDER = "/sys/runs"
_LONG = ("curve", "recipe", "facts")
"""What the list leaves out."""


def run_routes() -> list[BaseRoute]:
    """The list, and one of them."""
    return [
        Route(f"{ROOT}/runs", requires("read", _all), methods=["GET"]),
        Route(f"{ROOT}/runs/{{id}}", requires("read", _one), methods=["GET"]),
    ]


async def _all(request: Request) -> ASGIApp:
    """The runs of tuning that the key sees, the newest first, without curves, recipes and reports."""
    words(request)
    caller = caller_of(request)
    system = await gateway_of(request).sessions.system(caller)
    found = [await _read(system, entry.path.rpartition("/")[2]) for entry in await system.list(FOLDER)]
    mine = sorted((run for run in found if sees(caller, run)), key=lambda run: -float(run["created"]))
    short = [{name: value for name, value in shown(caller, run).items() if name not in _LONG} for run in mine]
    return json_response(answer(short, "", ()))


async def _one(request: Request) -> ASGIApp:
    """A run of tuning: recipe, figures, curve, and what its driver told, with the report."""
    words(request)
    caller, id = caller_of(request), str(request.path_params["id"])
    run = await _read(await gateway_of(request).sessions.system(caller), id)
    if not sees(caller, run):
        raise NotFound(f"this key has no run {id[:80]!r}")
    return json_response(answer(shown(caller, run), "", ()))


async def _read(system: AsyncSystem, id: str) -> dict[str, Any]:
    """The record of a run; empty where there is none, or none that can be read."""
    try:
        run: dict[str, Any] = msgspec.json.decode(await system.read(f"{FOLDER}/{id}"))
    except NotFound:
        return {}
    return run


def sees(caller: Caller, run: Mapping[str, Any]) -> bool:
    """Whether there is such a run for the caller: it began it, or sees everybody's. The owner is `uid:N/TENANT`."""
    return bool(run) and (caller.admin or run["owner"].partition("/")[2] == caller.tenant)


def shown(caller: Caller, run: Mapping[str, Any]) -> dict[str, Any]:
    """The record without places of this machine. `promoted` is null until there is a result."""
    base, done = run["base"], run["state"] == "done"
    same = ("id", "state", "created", "ended", "step", "steps", "tokens", "values", "recipe", "facts", "curve", "error")
    return {
        **{name: run[name] for name in same},
        "model": {"name": base["name"], "path": base["place"]["path"], "version": base["version"],
                  "device": base["device"]},
        "method": run["recipe"]["method"], "data": confine.outside(caller, run["data"]["path"]),
        "out": confine.outside(caller, run["out"]["path"].partition("@")[0]), "version": run["version"],
        "promoted": run["promoted"] if done else None,
    }  # fmt: skip
