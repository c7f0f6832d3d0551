"""The core of both clients, without any socket: frames in, frames out, a clock of the test."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.syscalls import calls, wire
from llmos.syscalls.errors import Busy, Cancelled, LlmosError, PeerGone, TimedOut
from llmos.syscalls.types import Handle, LimitsOut, Text, Welcome
from llmos.syscalls.wire import MessageKind, Progress, Reply
from llmos.userland.protocol import GRACE_NS, Protocol

STAT = calls.StatObject(handle=Handle(2))
STREAM = calls.InferStream(model=Handle(3), input=Text(text="a"), credit=8)
INFO = {"id": "x", "kind": "system", "name": "x", "state": "ok"}


class Clock:
    now = 1_000

    def __call__(self) -> int:
        return self.now


def core() -> Protocol:
    return Protocol(Clock())


def deliver(core: Protocol, kind: MessageKind, number: int, body: Any) -> None:
    core.receive(*wire.pack(kind, number, "", body))


def welcome(session: str) -> Welcome:
    return Welcome(
        session=session, token="t", protocol=1, features=[], limits=LimitsOut(), grants=[], wire=wire.LIMITS,
        handle=Handle(1), system=Handle(2),
    )  # fmt: skip


def test_request_ids_count_up_and_requests_leave_as_calls() -> None:
    c = core()
    (first, frames), (second, _) = c.start(STAT), c.start(STAT)
    message = wire.unpack(frames)
    assert (message.kind, message.name, message.request) == (MessageKind.CALL, "stat_object", first.id)
    assert second.id == first.id + 1 and set(c.pending) == {first.id, second.id}


def test_a_timeout_becomes_a_deadline_and_a_grace_of_the_client() -> None:
    c = core()
    pending, frames = c.start(STAT, timeout=2.5)
    assert wire.unpack(frames).body["deadline"] == 1_000 + 2_500_000_000
    assert pending.expires == 1_000 + 2_500_000_000 + GRACE_NS
    assert core().start(STAT)[0].expires is None


def test_only_what_changes_something_gets_a_key_and_a_key_of_the_caller_stays() -> None:
    c = core()
    remove = calls.RemovePath(path="/x")
    keys = [wire.unpack(c.start(call)[1]).body["key"] for call in (remove, remove, STAT, calls.ListDir(path="/"))]
    assert keys[0] and keys[1] and keys[0] != keys[1] and keys[2:] == ["", ""]
    mine = calls.RemovePath(path="/x", key="mine")
    assert wire.unpack(c.start(mine)[1]).body["key"] == "mine"
    assert Protocol()._keys != Protocol()._keys


def test_a_reply_carries_result_reasons_and_the_id_of_the_request() -> None:
    c = core()
    pending, _ = c.start(STAT)
    reason = {"code": "a", "text": "because"}
    deliver(c, MessageKind.REPLY, pending.id, {"value": INFO, "reasons": [reason], "request": "r-1"})
    assert pending.result().id == "x"
    assert (pending.request, [r.text for r in pending.reasons]) == ("r-1", ["because"])
    assert not c.pending


def test_an_answer_that_nobody_waits_for_is_dropped() -> None:
    c = core()
    pending, _ = c.start(STAT)
    deliver(c, MessageKind.REPLY, 99, Reply(value=INFO))
    deliver(c, MessageKind.BEAT, 0, {})
    deliver(c, MessageKind.PROGRESS, 99, Progress(done=1))
    deliver(c, MessageKind.CHUNK, 0, {"items": [[99, {}]]})
    assert not pending.done
    deliver(c, MessageKind.REPLY, pending.id, Reply(value=INFO))
    deliver(c, MessageKind.ERROR, pending.id, Busy("late").to_wire())
    assert pending.error is None


def test_progress_is_reported_where_the_caller_waits() -> None:
    c = core()
    seen: list[int] = []
    pending, _ = c.start(STAT, on_progress=lambda p: seen.append(p.done))
    rung: list[int] = []
    pending.notify = lambda: rung.append(1)
    for done in (1, 2):
        deliver(c, MessageKind.PROGRESS, pending.id, Progress(done=done))
    assert seen == [] and len(rung) == 2
    pending.report()
    assert seen == [1, 2]
    silent, _ = c.start(STAT)
    deliver(c, MessageKind.PROGRESS, silent.id, Progress(done=1))
    silent.report()


@given(st.integers(1, 40), st.integers(1, 200))
def test_the_kernel_never_waits_for_credit_while_the_reader_reads(window: int, total: int) -> None:
    """A kernel that sends only what it has credit for reaches the end, and never has more than the window under way."""
    c = core()
    pending, _ = c.start(calls.InferStream(model=Handle(3), input=Text(text="a"), credit=window))
    credit, sent, taken = window, 0, 0
    while taken < total:
        while credit and sent < total:
            deliver(c, MessageKind.CHUNK, 0, {"items": [[pending.id, {"text": str(sent)}]]})
            credit, sent = credit - 1, sent + 1
        assert sent - taken <= window
        assert pending.items, "the reader would wait for ever"
        item, frames = c.take(pending)
        assert item.text == str(taken)
        taken += 1
        if frames is not None:
            credit += wire.unpack(frames).body["credit"]


def test_no_credit_is_granted_to_a_stream_that_has_ended() -> None:
    c = core()
    pending, _ = c.start(STREAM)
    deliver(c, MessageKind.CHUNK, 0, {"items": [[pending.id, {"text": "a"}]] * 8})
    deliver(c, MessageKind.ERROR, pending.id, Busy("x").to_wire())
    assert [c.take(pending)[1] for _ in range(8)] == [None] * 8


def test_cancel_is_sent_once_and_the_request_still_waits_for_its_end() -> None:
    c = core()
    pending, _ = c.start(STREAM)
    (frames,) = c.cancel(pending)
    assert wire.unpack(frames).kind is MessageKind.CANCEL
    assert c.cancel(pending) == [] and not pending.done and pending.id in c.pending
    deliver(c, MessageKind.ERROR, pending.id, Cancelled("cancelled").to_wire())
    assert pending.done and c.cancel(pending) == []


def test_an_expired_request_is_cancelled_and_ends_with_timed_out() -> None:
    c = core()
    pending, _ = c.start(STAT, timeout=1)
    (frames,) = c.expire(pending)
    assert wire.unpack(frames).kind is MessageKind.CANCEL
    with pytest.raises(TimedOut, match="stat_object"):
        pending.result()
    assert not c.pending


def test_after_a_resume_each_request_goes_on_or_ends_and_none_is_left() -> None:
    c = core()
    given = (STAT, calls.RemovePath(path="/x"), calls.CloseHandle(handle=Handle(3)), STREAM, STREAM)
    read, change, once, started, fresh = (c.start(call)[0] for call in given)
    deliver(c, MessageKind.CHUNK, 0, {"items": [[started.id, {"text": "a"}]]})
    old = {p.id for p in (read, change, once, started, fresh)}
    key = change.call.key
    again = [wire.unpack(frames) for frames in c.resumed()]
    assert [m.name for m in again] == ["stat_object", "remove_path", "infer_stream"]
    assert not old & {m.request for m in again}
    assert again[1].body["key"] == key
    for ended in (once, started):
        with pytest.raises(PeerGone, match="not known"):
            ended.result()
    assert c.resumed() == []
    assert all(isinstance(p.error, PeerGone) for p in (read, change, fresh))


def test_a_cancelled_request_is_not_repeated() -> None:
    c = core()
    pending, _ = c.start(STAT)
    c.cancel(pending)
    assert c.resumed() == [] and isinstance(pending.error, PeerGone)


def test_after_the_session_is_over_nothing_starts_but_a_new_one() -> None:
    c = core()
    pending, _ = c.start(STAT)
    c.lost("the kernel is gone")
    with pytest.raises(PeerGone, match="stat_object: the kernel is gone"):
        pending.result()
    with pytest.raises(PeerGone, match="the kernel is gone"):
        c.start(STAT)
    c.start(calls.Hello(protocol=1, program="x"))
    c.renewed(welcome("s2"))
    assert not c.start(STAT)[0].done


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_taken_or_end_the_session(header: bytes, body: bytes) -> None:
    c = core()
    pending, _ = c.start(STAT)
    c.receive(header, body)
    assert c.ended == "" or isinstance(pending.error, LlmosError)


def test_a_result_of_another_version_is_an_error_and_not_a_crash() -> None:
    c = core()
    pending, _ = c.start(STAT)
    deliver(c, MessageKind.REPLY, pending.id, {"value": {"id": 3}})
    with pytest.raises(LlmosError, match="different versions"):
        pending.result()
