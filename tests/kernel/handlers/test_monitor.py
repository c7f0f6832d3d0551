"""Metrics, journal, events."""

from __future__ import annotations

from scripted import Inside, Program

from llmos.syscalls.errors import BadArgument, TimedOut


def test_metrics_are_up_to_date(program: Program) -> None:
    program.load("tiny")
    found = program.call("read_metrics", system=program.system)
    assert found['llmos_models{state="awake"}']["value"] == 1
    assert found['llmos_device_bytes{device="null0",what="weights"}']["value"] == 1024
    assert found["llmos_kernel_resident_bytes"]["value"] > 0
    assert set(program.call("read_metrics", system=program.system, prefix="llmos_sessions")) == {"llmos_sessions"}


def test_the_journal_can_be_read(program: Program) -> None:
    model = program.call("load_model", path="/models/tiny")
    records = program.call("read_journal", system=program.system, about=model["id"])
    assert any("is loaded on null0" in record["text"] for record in records)
    assert len(program.call("read_journal", system=program.system, after=-1, limit=1)) == 1


def test_events_come_until_they_are_cancelled(kernel: Inside, program: Program) -> None:
    with program.watching("session") as events:
        other = kernel.program()
        program.load("tiny")
        program.quiet()
        assert [event["about"] for event in events.chunks] == [other.session]
    kernel.program()
    assert len(events.chunks) == 1


def test_events_can_be_about_one_thing(kernel: Inside, program: Program) -> None:
    with program.watching(about="nothing") as events:
        kernel.program()
        program.quiet()
    assert events.chunks == []


def test_events_of_a_kind_that_there_is_not_are_no_silence(program: Program) -> None:
    error = program.error("watch_events", system=program.system, kinds=["model", "modle"])
    assert isinstance(error, BadArgument) and (error.name, error.got) == ("kinds", "modle")
    assert "did you mean 'model'?" in str(error) and error.want.startswith("device, driver, ")


def test_without_credit_events_are_counted_and_the_newest_comes(kernel: Inside, program: Program) -> None:
    number = program.send("watch_events", system=program.system, kinds=["session"], credit=1)
    others = [kernel.program() for _ in range(4)]
    program.quiet()
    events = program.answers[number].chunks
    assert [event["about"] for event in events] == [others[0].session]
    program.credit(number, 1)
    program.quiet()
    assert (events[1]["about"], events[1]["lost"]) == (others[3].session, 2)
    program.cancel(number)
    assert program.wait(number).error is None


def test_a_reader_that_takes_nothing_is_ended(kernel: Inside, program: Program) -> None:
    number = program.send("watch_events", system=program.system, kinds=["session"], credit=1)
    kernel.program()
    kernel.program()
    kernel.advance(61)
    assert isinstance(program.wait(number).error, TimedOut)
