"""The kernel's end of a host, fed with frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llmos.kernel.link import Garbage, Link
from llmos.kernel.pending import Runner
from llmos.syscalls.driver import HostStats, HostStop, HostSubmit, HostUnload, Work
from llmos.syscalls.errors import NotFound, PeerGone
from llmos.syscalls.events import Beat, Ready
from llmos.syscalls.types import Chunk, Text
from llmos.syscalls.wire import MessageKind, error_frames, pack, unpack


class Host:
    """What a link sends, and frames to answer with."""

    def __init__(self) -> None:
        self.sent: list[Sequence[bytes]] = []
        self.runner = Runner(lambda: 0)
        self.link = Link("null0", self.runner, self.sent.append)

    @property
    def last(self) -> int:
        return unpack(list(self.sent[-1])).request

    def says(self, kind: MessageKind, body: Any = None, number: int | None = None, name: str = "") -> Any:
        return self.link.receive(pack(kind, self.last if number is None else number, name, body))


@pytest.fixture
def host() -> Host:
    return Host()


def submit(host: Host) -> tuple[Any, list[Chunk]]:
    chunks: list[Chunk] = []
    future = host.link.stream(HostSubmit(work=Work(id="r", model="m", input=Text(text="x"))), chunks.append)
    return future, chunks


INFERENCE = {"id": "r", "task": "t", "model_version": "1"}


def test_a_call_is_sent_and_its_reply_reaches_the_future(host: Host) -> None:
    future = host.link.call(HostUnload(id="m"))
    message = unpack(list(host.sent[0]))
    assert (message.kind, message.name, message.body["id"]) == (MessageKind.CALL, "unload", "m")
    assert host.link.in_flight == 1
    assert host.says(MessageKind.REPLY, {"value": {"bytes": 5}}) is None
    assert future.result().bytes == 5
    assert host.link.in_flight == 0


def test_the_answer_of_a_call_is_near_and_the_end_of_a_stream_is_not(host: Host) -> None:
    submit(host)
    assert host.runner.awake_until == 0
    host.link.call(HostUnload(id="m"))
    assert 0 < host.runner.awake_until <= 1_000_000


def test_an_error_reaches_the_future_as_its_class(host: Host) -> None:
    future = host.link.call(HostUnload(id="m"))
    host.link.receive(error_frames(host.last, NotFound("no m")))
    with pytest.raises(NotFound, match="no m"):
        future.result()


def test_progress_is_told_and_not_an_answer(host: Host) -> None:
    seen: list[int] = []
    future = host.link.call(HostStop(), lambda progress: seen.append(progress.done))
    host.says(MessageKind.PROGRESS, {"done": 3})
    assert (seen, future.done) == ([3], False)


def test_progress_that_nobody_asked_for_is_dropped(host: Host) -> None:
    host.link.call(HostStop())
    assert host.says(MessageKind.PROGRESS, {"done": 3}) is None


def test_chunks_of_several_requests_in_one_frame_go_to_each(host: Host) -> None:
    _, first = submit(host)
    one = host.last
    _, second = submit(host)
    items = [[one, {"text": "a", "tokens": [1]}], [host.last, {"text": "b"}], [one, {"text": "c"}]]
    assert host.says(MessageKind.CHUNK, {"items": items}, number=0) is None
    assert [c.text for c in first] == ["a", "c"]
    assert [c.text for c in second] == ["b"]


def test_a_stream_ends_with_end(host: Host) -> None:
    future, _ = submit(host)
    host.says(MessageKind.END, {"value": INFERENCE})
    assert future.result().task == "t"


def test_events_and_beats_are_handed_back(host: Host) -> None:
    beat = host.says(MessageKind.BEAT, {"seq": 1, "steps": 2, "may_take_s": 9.0}, number=0)
    assert beat == Beat(seq=1, steps=2, may_take_s=9.0)
    assert host.says(MessageKind.EVENT, {"devices": []}, number=0, name="ready") == Ready()


@pytest.mark.parametrize(
    "frames",
    [
        [b"nonsense", b"more"],
        [b""],
        pack(MessageKind.REPLY, 99, "", {"value": {}}),
        pack(MessageKind.EVENT, 0, "party", {}),
        pack(MessageKind.CHUNK, 0, "", {"items": [[99, {}]]}),
        pack(MessageKind.CHUNK, 0, "", {"items": "?"}),
        pack(MessageKind.BEAT, 0, "", {"seq": "x"}),
        pack(MessageKind.CALL, 1, "hello", {}),
    ],
    ids=[
        "no message",
        "one frame",
        "unknown request",
        "unknown event",
        "unknown stream",
        "no items",
        "bad beat",
        "call",
    ],
)
def test_what_does_not_fit_is_garbage(host: Host, frames: list[bytes]) -> None:
    assert isinstance(host.link.receive(frames), Garbage)


def test_a_chunk_for_a_call_that_does_not_stream_is_garbage(host: Host) -> None:
    host.link.call(HostStats())
    assert isinstance(host.says(MessageKind.CHUNK, {"items": [[host.last, {}]]}), Garbage)


def test_a_second_answer_is_garbage(host: Host) -> None:
    host.link.call(HostStop())
    host.says(MessageKind.REPLY, {"value": {}})
    assert isinstance(host.says(MessageKind.REPLY, {"value": {}}), Garbage)


def test_an_answer_of_the_wrong_kind_or_type_is_garbage(host: Host) -> None:
    future = host.link.call(HostUnload(id="m"))
    assert isinstance(host.says(MessageKind.END, {"value": {"bytes": 5}}), Garbage)
    assert isinstance(host.says(MessageKind.REPLY, {"value": {"bytes": "many"}}), Garbage)
    assert not future.done


def test_when_the_host_is_lost_every_call_fails_now_and_later(host: Host) -> None:
    future = host.link.call(HostStop())
    host.link.lost("exit status 3")
    later = host.link.call(HostStop())
    for one in (future, later):
        with pytest.raises(PeerGone, match="exit status 3"):
            one.result()
    assert len(host.sent) == 1
