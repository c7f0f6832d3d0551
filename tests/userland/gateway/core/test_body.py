"""What arrives: bodies with limits, and the client's leave."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from starlette.requests import Request

from llmos.syscalls.errors import BadArgument
from llmos.userland.gateway.core.body import Inbox, ignored_header, json_body, too_large
from llmos.userland.gateway.core.errors import HttpError


class Thing(msgspec.Struct):
    name: str
    count: int = 0


def request(body: bytes, kind: str = "application/json") -> Request:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", kind.encode())] if kind else []
    return Request({"type": "http", "method": "POST", "headers": headers, "state": {}}, receive)


async def test_a_body_of_a_type() -> None:
    asked = request(b'{"name": "x", "count": 3, "more": [1], "other": 2}')
    assert await json_body(asked, Thing) == Thing("x", 3)
    assert ignored_header(asked.scope["state"]) == "more, other"
    assert await json_body(request(b'{"name": "x"}', ""), Thing) == Thing("x")
    assert await json_body(request(b'{"name": "x"}', "application/merge-patch+json; charset=utf-8"), Thing) == Thing(
        "x"
    )
    assert await json_body(request(b""), dict[str, int]) == {} and ignored_header({}) == ""


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"name": 5}', "name"), (b'{"name": "x", "count": "y"}', "count"), (b"{}", "name"), (b"[]", "body"),
        (b"{", "body"), (b"\xff", "body"), (b"[" * 100_000, "body"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(body: bytes, name: str) -> None:
    with pytest.raises(BadArgument) as raised:
        await json_body(request(body), Thing)
    assert raised.value.name == name


async def test_another_type_is_refused() -> None:
    with pytest.raises(HttpError) as raised:
        await json_body(request(b"{}", "text/xml"), Thing)
    assert raised.value.status == 415


class Wire:
    """Messages as a server hands them over."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in messages:
            self.queue.put_nowait({"type": "http.request", **message})

    async def __call__(self) -> Any:
        return await self.queue.get()

    def leave(self) -> None:
        self.queue.put_nowait({"type": "http.disconnect"})


async def test_the_limit_counts_all_pieces() -> None:
    inbox = Inbox(Wire({"body": b"12345", "more_body": True}, {"body": b"678901", "more_body": False}), 10, 5.0)
    await inbox()
    with pytest.raises(HttpError) as raised:
        await inbox()
    assert raised.value.status == 413 == too_large(10).status
    larger = Inbox(Wire({"body": b"12345678901", "more_body": False}), 10, 5.0)
    larger.allow(11)
    assert (await larger())["body"] == b"12345678901" and larger.whole
    assert await larger() == {"type": "http.request", "body": b"", "more_body": False}
    larger.close()


async def test_what_is_refused_is_read_on_and_forgotten() -> None:
    wire = Wire(*({"body": b"x" * 100, "more_body": at < 9} for at in range(10)))
    inbox = Inbox(wire, 150, 5.0)
    await inbox()
    with pytest.raises(HttpError):
        await inbox()
    await inbox.discard()
    assert inbox.whole and wire.queue.empty()
    inbox.close()


async def test_a_body_that_pauses_too_long() -> None:
    inbox = Inbox(Wire({"body": b"1", "more_body": True}), 10, 0.01)
    await inbox()
    with pytest.raises(HttpError) as raised:
        await inbox()
    assert raised.value.status == 408


async def serve(wire: Wire, answered: bool = False) -> Inbox:
    """What a handler does: read the body, then work for ever."""
    inbox = Inbox(wire, 10, 5.0)
    try:
        await inbox()
        inbox.answered = answered
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        if not inbox.gone:
            raise
    finally:
        inbox.close()
    return inbox


async def test_the_leave_of_the_client_ends_its_work() -> None:
    for messages in ([{"body": b"", "more_body": False}], []):
        wire = Wire(*messages)
        task = asyncio.create_task(serve(wire))
        await asyncio.sleep(0)
        wire.leave()
        assert (await task).gone


async def test_the_end_of_an_answered_connection_ends_nothing() -> None:
    wire = Wire({"body": b"", "more_body": False})
    task = asyncio.create_task(serve(wire, answered=True))
    await asyncio.sleep(0)
    wire.leave()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_form_may_be_json_when_the_key_came_in_a_header() -> None:
    form = "application/x-www-form-urlencoded"
    for name in (b"authorization", b"x-api-key"):
        asked = request(b'{"name": "x"}', form)
        asked.scope["headers"].append((name, b"Bearer k"))
        assert await json_body(asked, Thing) == Thing("x")
    for kind, header in ((form, b"cookie"), ("multipart/form-data", b"x-api-key")):
        asked = request(b'{"name": "x"}', kind)
        asked.scope["headers"].append((header, b"llmos_key=k"))
        with pytest.raises(HttpError) as raised:
            await json_body(asked, Thing)
        assert raised.value.status == 415
