"""One session's connection, requests and remembered answers."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from llmos.kernel import session as module
from llmos.kernel.namespace import MountTable
from llmos.kernel.session import Peer, Session, new_token
from llmos.syscalls.errors import TooLarge
from llmos.syscalls.types import Chunk, Limits
from llmos.syscalls.wire import LIMITS, MessageKind, unpack


class Sent:
    """A session and what it sends."""

    def __init__(self, tenant: str = "") -> None:
        self.frames: list[Sequence[bytes]] = []
        self.connected = True
        self.dirty: list[Session] = []
        peer = Peer(1000, 1000, 42)
        self.session = Session(
            "s-1", "token", peer, "test", tenant, MountTable(), Limits(), self._send, self.dirty, 0.0
        )
        self.session.route = b"route"

    def _send(self, _route: bytes, frames: Sequence[bytes]) -> bool:
        self.frames.append(frames)
        return self.connected

    def messages(self) -> list[Any]:
        return [unpack(list(frames)) for frames in self.frames]


@pytest.fixture
def sent() -> Sent:
    return Sent()


def request(key: str = "", number: int = 1) -> Any:
    return SimpleNamespace(key=key, receivers=[number])


def test_a_peer_is_read_from_the_address_libzmq_gives() -> None:
    assert Peer.parse("localhost:1000:100:4242") == Peer(1000, 100, 4242)
    for bad in ("", "127.0.0.1", "localhost:x:y:z"):
        with pytest.raises(ValueError):
            Peer.parse(bad)


def test_tokens_are_new_and_only_their_hash_is_kept(sent: Sent) -> None:
    assert new_token() != new_token()
    assert sent.session.owns_token("token") and not sent.session.owns_token("other")
    sent.session.renew_token("other")
    assert sent.session.owns_token("other") and not sent.session.owns_token("token")
    assert "other" not in map(str, vars(sent.session).values())


def test_a_tenant_is_part_of_the_owner() -> None:
    assert Sent().session.owner == "1000" and Sent("a").session.owner == "1000/a"


def test_items_of_one_turn_leave_in_one_frame(sent: Sent) -> None:
    sent.session.chunk(1, Chunk(index=0, text="a", tokens=[1]))
    sent.session.chunk(2, Chunk(index=0, text="b", tokens=[2]))
    assert sent.dirty == [sent.session]
    sent.session.flush()
    sent.session.flush()
    message = sent.messages()[0]
    assert len(sent.frames) == 1 and message.request == 0
    assert [(number, item["text"]) for number, item in message.body["items"]] == [(1, "a"), (2, "b")]


def test_items_of_one_request_carry_its_number(sent: Sent) -> None:
    sent.session.chunk(7, Chunk(index=0, text="a", tokens=[1]))
    sent.session.flush()
    assert sent.messages()[0].request == 7


def test_items_too_many_for_one_message_leave_in_several_and_in_order(sent: Sent) -> None:
    for index in range(5):
        sent.session.chunk(1, Chunk(index=index, text=str(index) * (LIMITS.message_bytes // 3)))
    sent.session.flush()
    assert len(sent.frames) > 1
    assert [item["index"] for message in sent.messages() for _, item in message.body["items"]] == [0, 1, 2, 3, 4]


def test_an_item_larger_than_a_message_ends_its_request_and_no_other(sent: Sent) -> None:
    ended: list[Any] = []
    sent.session.requests[1] = SimpleNamespace(interrupt=ended.append)  # type: ignore[assignment]
    sent.session.chunk(1, Chunk(index=0, text="x" * LIMITS.message_bytes))
    sent.session.chunk(2, Chunk(index=0, text="y" * LIMITS.message_bytes))  # a request that is gone
    sent.session.chunk(3, Chunk(index=0, text="z"))
    sent.session.flush()
    assert [message.request for message in sent.messages()] == [3]
    assert [type(error) for error in ended] == [TooLarge]


def test_chunks_leave_before_the_end(sent: Sent) -> None:
    sent.session.chunk(1, Chunk(index=0, text="a", tokens=[1]))
    sent.session.terminal(1, MessageKind.END, b"\x80")
    assert [message.kind for message in sent.messages()] == [MessageKind.CHUNK, MessageKind.END]


def test_after_a_lost_connection_nothing_is_sent(sent: Sent) -> None:
    sent.connected = False
    sent.session.send([b"one"])
    sent.session.send([b"two"])
    assert sent.frames == [[b"one"]] and sent.session.route is None


def test_answers_are_remembered_by_key(sent: Sent) -> None:
    one = request("k")
    sent.session.begin(1, one)
    assert sent.session.repeat(2, "k") and one.receivers == [1, 2] and sent.session.requests[2] is one
    sent.session.finished(one, MessageKind.REPLY, b"\x80")
    assert sent.session.requests == {}
    assert sent.session.repeat(3, "k") and sent.messages()[-1].request == 3
    assert not sent.session.repeat(4, "other")


def test_without_a_key_nothing_is_remembered(sent: Sent) -> None:
    one = request()
    sent.session.begin(1, one)
    sent.session.finished(one, MessageKind.REPLY, b"\x80")
    assert not sent.session.repeat(2, "")


def test_what_is_remembered_is_bounded(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    monkeypatch.setattr(module, "_REMEMBERED_BYTES", 100)
    for key in "abc":
        sent.session.finished(request(key), MessageKind.REPLY, b"\x80")
    assert [sent.session.repeat(9, key) for key in "abc"] == [False, True, True]
    sent.session.finished(request("d"), MessageKind.REPLY, b"x" * 100)
    assert [sent.session.repeat(9, key) for key in "bcd"] == [False, False, True]
