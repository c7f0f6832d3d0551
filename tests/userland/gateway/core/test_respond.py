"""Answers: JSON, errors, events, streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmos.syscalls.errors import Busy
from llmos.userland.gateway.core.respond import (
    EventStream, encoded, error_response, joined, json_response, sse, sse_error,
)  # fmt: skip


def test_json_and_errors() -> None:
    made = json_response({"a": b"\x00", "b": float("inf")}, 201, {"x-more": "1"})
    assert (
        made.status_code == 201 and json.loads(made.body) == {"a": "AA==", "b": None} and made.headers["x-more"] == "1"
    )
    error = error_response(Busy("wait", retry_after_ms=2500))
    assert error.status_code == 503 and error.headers["retry-after"] == "3" and error.media_type == "application/json"


def test_events() -> None:
    assert sse(b"{}") == b"data: {}\n\n"
    assert sse(encoded({"a": 1}), "item", "7") == b'id: 7\nevent: item\ndata: {"a":1}\n\n'
    assert json.loads(sse_error(Busy("no"))[6:])["error"]["code"] == "busy"


class Arrived:
    """A stream of groups: the items of one are there together."""

    def __init__(self, *groups: str) -> None:
        self.groups = [list(group) for group in groups]

    @property
    def ready(self) -> bool:
        return bool(self.groups and self.groups[0])

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        while self.groups and not self.groups[0]:
            self.groups.pop(0)
        if not self.groups:
            raise StopAsyncIteration
        return self.groups[0].pop(0)


async def test_what_is_there_together_is_sent_together() -> None:
    assert [piece async for piece in joined(Arrived("abc", "d", "ef"), str.encode)] == [b"abc", b"d", b"ef"]


class Gauge:
    value = 0

    def inc(self) -> None:
        self.value += 1

    def dec(self) -> None:
        self.value -= 1


def scope_with(gauge: Gauge) -> dict[str, Any]:
    class Inbox:
        whole = True

    class Gateway:
        class instruments:
            streams = gauge

    return {"state": {"gateway": Gateway, "inbox": Inbox}}


async def receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def test_a_stream_is_sent_and_closed() -> None:
    sent: list[Any] = []
    closed: list[str] = []
    gauge = Gauge()

    async def send(message: Any) -> None:
        assert gauge.value == 1
        sent.append(message)

    async def items() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            yield b"two"
        finally:
            closed.append("items")

    async def close() -> None:
        closed.append("closed")

    await EventStream(items(), on_close=close, headers={"X-More": "1"})(scope_with(gauge), receive, send)
    assert [message.get("body") for message in sent] == [None, b"one", b"two", b""] and sent[-1]["more_body"] is False
    assert (b"content-type", b"text/event-stream") in sent[0]["headers"] and (b"x-more", b"1") in sent[0]["headers"]
    assert closed == ["items", "closed"] and gauge.value == 0


async def test_what_the_stream_holds_is_given_back_when_the_client_is_gone() -> None:
    closed: list[str] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError("gone")

    async def items() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"more"
        finally:
            closed.append("items")

    async def close() -> None:
        closed.append("closed")

    gauge = Gauge()
    with pytest.raises(OSError, match="gone"):
        await EventStream(items(), on_close=close)(scope_with(gauge), receive, send)
    assert closed == ["items", "closed"] and gauge.value == 0
