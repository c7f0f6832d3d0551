"""Calls over HTTP: the body is the arguments, the answer the result; derived from the call table.

Every call that is offered is `POST /api/v1/NAME` with its arguments as JSON; those that only read have a short GET
form too. A call that streams answers with server-sent events; one that takes long tells its progress that way to who
accepts `text/event-stream`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from llmos.syscalls import calls
from llmos.syscalls.spec import Call, CallSpec
from llmos.syscalls.types import Handle
from llmos.syscalls.wire import Progress
from llmos.userland.aio import AsyncStreamReader
from llmos.userland.async_objects import AsyncSystem

from ..core.body import json_body
from ..core.caller import Caller, caller_of, gateway_of
from ..core.errors import FAILURES, Failure, answer_of
from ..core.respond import EVENTS, EventStream, encoded, json_response, sse
from ..core.routing import requires
from .asking import Asked, Held, Load, Visible, ask, call_of, seen
from .derive import answer, bare, offered, timeout_of
from .queries import ROOT
from .scopes import CALLS


def call_routes() -> list[BaseRoute]:
    """`POST /api/v1/NAME` for every call that is offered."""
    held = Held()
    return [
        Route(f"{ROOT}/{spec.name}", requires(CALLS[spec.name], partial(_call, spec, held)), methods=["POST"])
        for spec in offered()
    ]


async def _call(spec: CallSpec, held: Held, request: Request) -> ASGIApp:
    body = await json_body(request, dict[str, Any])
    return await run(request, spec, body, held=held)


async def run(
    request: Request, spec: CallSpec, body: dict[str, Any], *, status: int = 200, held: Held | None = None
) -> ASGIApp:
    """Make a call for the caller of the request, in the form that it accepts.

    Args:
        status: of a good answer.
        held: where what the call opens is remembered, and found by the call that ends it.

    Raises:
        LlmosError: what the call ended with.
    """
    caller, gateway = caller_of(request), gateway_of(request)
    system = await gateway.sessions.system(caller)
    timeout = timeout_of(body, gateway.settings.request_s)
    call = await call_of(caller, system, spec, body, _loading(request, caller), held)
    if spec.streams:
        return await _streamed(request, system, call, timeout)
    if EVENTS in request.headers.get("accept", ""):
        return EventStream(_with_progress(caller, system, call, timeout, held))
    asked = await ask(system.client, call, timeout)
    if held is not None:
        held.keep(system.client, asked.value)
    _told(request, asked)
    return json_response(await _answer(caller, system, call, asked), status)


def _loading(request: Request, caller: Caller) -> Load:
    async def load(name: str) -> Handle:
        return (await gateway_of(request).models.get(caller, name)).handle

    return load


async def value_of(request: Request, call: Call[Any]) -> Any:
    """What a call answers that the gateway makes for a caller; its paths are confined by whoever made it."""
    caller, gateway = caller_of(request), gateway_of(request)
    system = await gateway.sessions.system(caller)
    asked = await ask(system.client, call, gateway.settings.request_s)
    _told(request, asked)
    return await seen(caller, system, call, asked.value)


def _told(request: Request, asked: Asked) -> None:
    if asked.request:
        request.scope["state"]["kernel_request"] = asked.request


async def _answer(caller: Caller, system: AsyncSystem, call: Call[Any], asked: Asked) -> dict[str, Any]:
    return answer(await seen(caller, system, call, asked.value), asked.request, asked.reasons)


# ---- streams


async def _streamed(request: Request, system: AsyncSystem, call: Call[Any], timeout: float) -> ASGIApp:
    caller = caller_of(request)
    visible = Visible(caller, system) if isinstance(call, calls.WatchEvents) else None
    if visible is not None:
        await visible.begin()
        reader = await system.client.stream(call)
        return EventStream(_items(reader, [], visible), on_close=reader.close)
    reader = await system.client.stream(call, timeout=timeout)
    try:  # what refuses the call is told with its status
        first = await anext(reader, None)
    except asyncio.CancelledError:
        await asyncio.shield(reader.close())
        raise
    return EventStream(_items(reader, [] if first is None else [first], None), on_close=reader.close)


async def _items(
    reader: AsyncStreamReader[Any, Any], first: list[Any], visible: Visible | None
) -> AsyncIterator[bytes]:
    try:
        if visible is not None:
            yield b": open\n\n"
        for item in first:
            yield _item(item)
        parts: list[bytes] = []
        async for item in reader:
            if visible is None or await visible.sees(item):
                parts.append(_item(item))
            if parts and not reader.ready:
                yield b"".join(parts)
                parts.clear()
        yield b"".join(parts)
        yield sse(encoded(answer(await reader.result(), reader.request, ())), "end")
    except FAILURES as error:
        yield failed(error)


def _item(item: Any) -> bytes:
    return sse(encoded(bare(item)), "item")


def failed(error: Failure) -> bytes:
    """An error as an event of a stream."""
    return sse(encoded({"error": answer_of(error).body}), "error")


async def _with_progress(
    caller: Caller, system: AsyncSystem, call: Call[Any], timeout: float, held: Held | None
) -> AsyncIterator[bytes]:
    news: asyncio.Queue[bytes] = asyncio.Queue()

    def progressed(progress: Progress) -> None:
        news.put_nowait(sse(encoded(progress), "progress"))

    async def work() -> None:
        try:
            asked = await ask(system.client, call, timeout, progressed)
            if held is not None:
                held.keep(system.client, asked.value)
            news.put_nowait(sse(encoded(await _answer(caller, system, call, asked)), "end"))
        except FAILURES as error:
            news.put_nowait(failed(error))
        finally:
            news.put_nowait(b"")

    task = asyncio.get_running_loop().create_task(work())
    try:
        yield b": begun\n\n"
        while piece := await news.get():
            yield piece
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
