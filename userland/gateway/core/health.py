"""Is it alive, and can it serve: the whole gateway, or one model."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from llmos.syscalls.calls import ListObjects
from llmos.syscalls.errors import PeerGone, TimedOut, Unavailable
from llmos.syscalls.types import Kind, ObjectInfo

from .caller import caller_of, gateway_of
from .errors import model_not_found
from .guard import stopping
from .respond import json_response
from .routing import public, requires

PATIENCE_S = 1.0
"""How long the kernel may take to answer."""

_SERVES = ("awake", "asleep", "cold")


async def live(request: Request) -> Response:
    """200 while the loop runs."""
    return json_response({"status": "live"})


async def ready(request: Request) -> Response:
    """200 when requests can be served; with `?model=NAME`, requests for that model. Else 503, or 404 for no such model.

    Raises:
        Unavailable: and why.
    """
    return json_response(await check(request, request.query_params.get("model")))


async def check(request: Request, name: str | None) -> dict[str, object]:
    """Whether requests can be served, for one model or at all.

    Raises:
        Unavailable: they cannot, and why.
        HttpError: no model of that name is loaded.
    """
    gateway = gateway_of(request)
    if gateway.state.draining:
        raise stopping()
    try:
        own = await gateway.sessions.own()
        listing = ListObjects(system=own.handle, kind=Kind.DEVICE)
        devices = await own.client.call(listing, timeout=PATIENCE_S)
        if name is None:
            return {"status": "ready", "devices": _ready_devices(devices)}
        return await _model(request, name, devices)
    except (PeerGone, TimedOut):
        raise Unavailable("the kernel does not answer now", retry_after_ms=1000) from None


def _ready_devices(devices: list[ObjectInfo]) -> dict[str, str]:
    states = {info.name: info.state for info in devices}
    if "ready" not in states.values():
        told = ", ".join(f"{name} is {state}" for name, state in states.items()) or "there is none"
        raise Unavailable(f"no device is ready: {told}", retry_after_ms=1000)
    return states


async def _model(request: Request, name: str, devices: list[ObjectInfo]) -> dict[str, object]:
    gateway = gateway_of(request)
    info = await gateway.models.state(caller_of(request), name)
    if info is None:
        if await gateway.models.is_stored(caller_of(request), name):
            raise Unavailable(f"the model {name!r} is not loaded; its first request loads it", retry_after_ms=1000)
        raise model_not_found(name, "it is not loaded")
    device = next((each for each in devices if each.name == info.fields.get("device")), None)
    if info.state not in _SERVES or device is None or device.state != "ready":
        where = f"its device {device.name} is {device.state}" if device is not None else "its device is gone"
        raise Unavailable(f"the model {name!r} is {info.state}, {where}", retry_after_ms=1000)
    return {"status": "ready", "model": info.name, "state": info.state, "device": device.name}


async def version(request: Request) -> Response:
    """The version of the kernel."""
    own = await gateway_of(request).sessions.own()
    fields = (await own.stat()).fields
    return json_response({"version": fields.get("version", ""), "protocol": fields.get("protocol", 0)})


def routes() -> list[BaseRoute]:
    """The routes of this module."""
    return [
        Route("/health/live", public(live), methods=["GET"]),
        Route("/health/ready", requires("read", ready), methods=["GET"]),
        Route("/health", requires("read", ready), methods=["GET"]),
        Route("/version", requires("read", version), methods=["GET"]),
    ]
