"""Messages of the work thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmos.drivers.outgoing import Outgoing
from llmos.syscalls.driver import Beat, Fault, Ready
from llmos.syscalls.errors import NotFound
from llmos.syscalls.types import Chunk, Done
from llmos.syscalls.wire import LIMITS, Message, MessageKind, Progress, unpack


class Wire:
    def __init__(self) -> None:
        self.posted: list[list[Message]] = []
        self.out = Outgoing(self.post)

    def post(self, messages: Iterable[Sequence[bytes]]) -> None:
        self.posted.append([unpack(list(frames)) for frames in messages])


def test_everything_said_goes_out_at_once_and_in_order() -> None:
    wire = Wire()
    wire.out.progress(1, Progress(done=1, total=2))
    wire.out.chunks([(2, Chunk(text="a")), (3, Chunk(text="b"))])
    wire.out.end(2, Done())
    wire.out.error(3, NotFound("gone"))
    wire.out.reply(1, Done())
    assert wire.posted == []
    wire.out.flush()
    (messages,) = wire.posted
    assert [(m.kind, m.request) for m in messages] == [
        (MessageKind.PROGRESS, 1), (MessageKind.CHUNK, 0), (MessageKind.END, 2), (MessageKind.ERROR, 3),
        (MessageKind.REPLY, 1),
    ]  # fmt: skip
    assert [[number, item["text"]] for number, item in messages[1].body["items"]] == [[2, "a"], [3, "b"]]


def test_nothing_said_wakes_nobody() -> None:
    wire = Wire()
    wire.out.flush()
    wire.out.reply(1, Done())
    wire.out.flush()
    wire.out.flush()
    assert len(wire.posted) == 1


def test_events_carry_their_name_and_beats_their_kind() -> None:
    wire = Wire()
    wire.out.event(Ready())
    wire.out.event(Fault(text="x"))
    wire.out.event(Beat(seq=1, steps=2))
    wire.out.flush()
    kinds = [(m.kind, m.name) for m in wire.posted[0]]
    assert kinds == [(MessageKind.EVENT, "ready"), (MessageKind.EVENT, "fault"), (MessageKind.BEAT, "")]


def test_an_answer_that_is_too_large_becomes_an_error() -> None:
    wire = Wire()
    wire.out.reply(4, "x" * (LIMITS.message_bytes + 1))
    wire.out.flush()
    (message,) = wire.posted[0]
    assert (message.kind, message.request, message.body["name"]) == (MessageKind.ERROR, 4, "TooLarge")


def test_an_answer_that_is_no_plain_data_fails_its_own_request_only() -> None:
    wire = Wire()
    wire.out.end(4, object())
    wire.out.end(5, Done())
    wire.out.flush()
    message, other = wire.posted[0]
    assert (message.kind, message.request, message.body["name"]) == (MessageKind.ERROR, 4, "DeviceFault")
    assert "not plain data" in message.body["message"] and (other.kind, other.request) == (MessageKind.END, 5)
