"""Answers: JSON, errors, and streams of server-sent events or lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .errors import Failure, answer_of

T = TypeVar("T", covariant=True)

JSON = "application/json"
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


def encoded(value: Any) -> bytes:
    """The value as JSON."""
    return _encode(value)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(_encode(value), status, headers, JSON)


def error_response(error: Failure, request: Request | None = None) -> Response:
    """An error in the form of the OpenAI API, with its status and `Retry-After`."""
    answer = answer_of(error)
    return json_response({"error": answer.body}, answer.status, answer.headers)


def sse(data: bytes, event: str = "", id: str = "") -> bytes:
    """One server-sent event (WHATWG HTML, 9.2.6); `data` has no line breaks."""
    head = (f"id: {id}\n" if id else "") + (f"event: {event}\n" if event else "")
    return b"%bdata: %b\n\n" % (head.encode(), data)


def sse_error(error: Failure) -> bytes:
    """An error inside a stream whose head is out already; nothing comes after it."""
    return sse(_encode({"error": answer_of(error).body}))


class Reader(Protocol[T]):
    """A stream of the kernel: `AsyncStreamReader`."""

    @property
    def ready(self) -> bool: ...

    def __aiter__(self) -> AsyncIterator[T]: ...


async def joined(reader: Reader[T], render: Callable[[T], bytes]) -> AsyncIterator[bytes]:
    """What the items of a stream become, with all that has arrived in one piece: one write for many tokens."""
    parts: list[bytes] = []
    async for item in reader:
        parts.append(render(item))
        if not reader.ready:
            yield parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
    if parts:
        yield b"".join(parts)


async def no_cleanup() -> None:
    """For streams that hold nothing."""


class EventStream:
    """An ASGI app that sends pieces as they come. A client that leaves ends it, and `on_close` runs whatever happens.

    Args:
        items: the pieces; their end ends the answer. A slow client slows the iteration down.
        media_type: `EVENTS`, `LINES`, ...
        on_close: gives back what the items hold; runs to its end even when the request is cancelled.
    """

    def __init__(
        self,
        items: AsyncIterator[bytes],
        *,
        media_type: str = EVENTS,
        on_close: Callable[[], Awaitable[None]] = no_cleanup,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._items = items
        self._on_close = on_close
        self._headers = [
            (b"content-type", media_type.encode()), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"),
            *((name.lower().encode(), value.encode()) for name, value in (headers or {}).items()),
        ]  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streams = scope["state"]["gateway"].instruments.streams
        streams.inc()
        try:
            while (await receive())["type"] == "http.request" and not scope["state"]["inbox"].whole:
                pass  # the rest of a body that nobody read; from its end on, the inbox watches for the client's leave
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            async for item in self._items:
                await send({"type": "http.response.body", "body": item, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            streams.dec()
            await asyncio.shield(_closed(self._items, self._on_close))


async def _closed(items: AsyncIterator[bytes], on_close: Callable[[], Awaitable[None]]) -> None:
    try:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
    finally:
        await on_close()
