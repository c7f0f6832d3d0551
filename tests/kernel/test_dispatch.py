"""From frames to a handler and back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from scripted import Inside, Program, inside

from llmos.kernel.dispatch import Dispatcher, Handlers
from llmos.kernel.session import Peer
from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument, BadCall, Denied, OverQuota, TimedOut
from llmos.syscalls.wire import MessageKind, pack


def test_a_call_has_one_handler() -> None:
    handlers = Handlers()
    handlers.implements(calls.Infer)(lambda _request, _call: None)
    with pytest.raises(TypeError, match="Infer has two handlers"):
        handlers.implements(calls.Infer)(lambda _request, _call: None)


def test_a_missing_handler_is_noticed_at_the_start(kernel: Inside) -> None:
    with pytest.raises(TypeError, match=r"without a handler: .*infer"):
        Dispatcher(kernel.kernel, {})


@pytest.mark.parametrize("frames", [[], [b"x"], [b"x", b"y", b"z"], [b"nonsense", b"\x80"]])
def test_what_is_no_message_is_an_error_about_nothing(program: Program, frames: list[bytes]) -> None:
    program.send_frames(*frames)
    assert isinstance(program.stray(), BadCall)


def test_an_unknown_call_names_the_nearest(program: Program) -> None:
    assert "did you mean infer?" in str(program.error("infers"))
    assert "did you mean" not in str(program.error("xyzzy"))


def test_arguments_are_checked(program: Program) -> None:
    assert isinstance(program.error("stat_object", handle="one"), BadArgument)
    assert isinstance(program.error("stat_object"), BadArgument)


def test_hello_comes_first(kernel: Inside) -> None:
    stranger = kernel.connect()
    assert isinstance(stranger.error("stat_object", handle=1), Denied)


def test_a_cancel_without_a_session_is_denied(kernel: Inside) -> None:
    stranger = kernel.connect()
    stranger.send_frames(*pack(MessageKind.CANCEL, 0))
    assert isinstance(stranger.stray(), Denied)


def test_a_route_of_another_process_is_nobodys(kernel: Inside, program: Program) -> None:
    wire = program.wire
    wire.peer = Peer(os.getuid(), os.getgid(), os.getpid() + 1)
    assert isinstance(program.error("stat_object", handle=program.system), Denied)


def test_a_program_sends_calls_credit_and_cancels_only(program: Program) -> None:
    program.send_frames(*pack(MessageKind.BEAT, 0))
    assert "not beat" in str(program.stray())


def test_request_ids_are_not_zero_and_not_in_flight(program: Program) -> None:
    program.send_frames(*pack(MessageKind.CALL, 0, "stat_object", {"handle": program.system}))
    assert "reserved" in str(program.stray())
    number = program.send("watch_events", system=program.system)
    program.send_frames(*pack(MessageKind.CALL, number, "stat_object", {"handle": program.system}))
    assert "in flight already" in str(program.wait(number).error)


def test_a_deadline_in_the_past_is_over_at_once(kernel: Inside, program: Program) -> None:
    error = program.error("stat_object", handle=program.system, deadline=kernel.now)
    assert isinstance(error, TimedOut) and "had passed when the call arrived" in str(error)


def test_a_deadline_ends_a_wait(kernel: Inside, program: Program) -> None:
    number = program.send("watch_events", system=program.system, deadline=kernel.now + 10**9)
    kernel.advance(0.9)
    assert not program.done(number)
    kernel.advance(0.2)
    error = program.wait(number).error
    assert isinstance(error, TimedOut) and "after 1.000 s" in str(error)


def test_the_key_of_a_call_in_flight_joins_it(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    first = program.start(model, "x", "infer_stream", call_key="k")
    second = program.start(model, "x", "infer_stream", call_key="k")
    kernel.null.chunk({"index": 0, "text": "a", "tokens": [1]})
    kernel.null.release("submit")
    assert program.wait(first).body == program.wait(second).body
    assert program.answers[first].text == program.answers[second].text == "a"
    third = program.wait(program.start(model, "x", call_key="k"))
    assert third.body == program.answers[first].body and kernel.null.names().count("submit") == 1


def test_a_failed_call_is_repeated_from_its_key_too(program: Program) -> None:
    first = program.error("stat_path", path="/nowhere", key="k")
    assert str(program.error("stat_path", path="/models", key="k")) == str(first)


def test_requests_in_flight_are_limited(kernel: Inside, program: Program) -> None:
    program.control(program.handle, "limit", queued_requests=1)
    number = program.send("watch_events", system=program.system)
    error = program.error("stat_object", handle=program.system)
    assert isinstance(error, OverQuota) and error.what == "queued_requests"
    program.cancel(number)
    program.wait(number)
    program.quiet()


def test_credit_is_a_positive_number(program: Program) -> None:
    for credit in (0, -1, "1", True, None, 100_001):
        program.send_frames(*pack(MessageKind.CREDIT, 0, "", {"credit": credit}))
        error = program.stray()
        assert isinstance(error, BadArgument) and error.name == "credit"


def test_credit_and_cancels_that_come_late_are_dropped(program: Program) -> None:
    program.quiet()
    program.credit(1, 5)
    program.cancel(1)
    program.quiet()
    assert program.strays == []


def test_a_request_that_ended_is_not_cancelled(kernel: Inside, program: Program) -> None:
    number = program.send("watch_events", system=program.system)
    request = kernel.session(program).requests[number]
    program.cancel(number)
    assert program.wait(number).error is None
    assert kernel.kernel.dispatcher.cancel(request) is False


def test_a_result_too_large_for_a_message_is_an_error(folder: Path) -> None:
    with inside(folder, drivers="files") as kernel:
        program = kernel.program()
        metric = kernel.kernel.instruments.driver_values
        for number in range(900):
            metric.labels("null0", "x" * 10_000, str(number)).set(1)
        assert type(program.error("read_metrics", system=program.system)).__name__ == "TooLarge"
