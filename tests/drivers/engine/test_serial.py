"""The serial runner: one request after the other, and what it holds for conversations."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_models import PROMPT, ask, done

from llmos.drivers.contract import DoneEvent
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.serial import SerialRunner


@pytest.fixture
def rung() -> str:
    return "G"


@pytest.fixture
def serial(engine: Engine) -> SerialRunner:
    found = engine._entries["m"].awake().runners[0]
    assert isinstance(found, SerialRunner)
    return found


def test_requests_wait_for_the_one_before(serial: SerialRunner) -> None:
    for id in "ab":
        serial.submit(ask(PROMPT, id, max_tokens=2, task="text-generation"))
    assert [request.id for request in serial.requests()] == ["a", "b"] and serial.busy
    ended = []
    while serial.busy:
        ended += [event.request for event in serial.step() if isinstance(event, DoneEvent)]
    assert ended == ["a", "b"] and not serial.requests()


def ended(serial: SerialRunner) -> list[str]:
    found = []
    while serial.busy:
        found += [event.request for event in serial.step() if isinstance(event, DoneEvent)]
    return found


def test_a_higher_class_goes_first_at_each_step_and_the_lower_goes_on_where_it_was(
    engine: Engine, serial: SerialRunner
) -> None:
    serial.set_budget({"batch": 0.0})
    low = replace(ask(PROMPT, "low", max_tokens=6, task="text-generation"), work_class="batch")
    serial.submit(low)
    serial.step()
    before = serial.usage()["low"]
    assert before.device_ns > 0 and before.tokens == len(PROMPT)
    serial.submit(ask(PROMPT[:4], "high", max_tokens=3, task="text-generation", stream=True))
    assert [event.request for event in serial.step()] == ["high"]
    assert serial.usage()["low"] == before
    events = []
    while serial.busy:
        events += serial.step()
    assert [event.request for event in events if isinstance(event, DoneEvent)] == ["high", "low"]
    (made,) = [event for event in events if isinstance(event, DoneEvent) and event.request == "low"]
    assert made.choices == done(engine, replace(low, id="again", work_class="interactive")).choices


def test_a_lower_class_gets_its_part_and_a_preempted_request_its_turn_later(serial: SerialRunner) -> None:
    for id, work_class in (("a", "interactive"), ("b", "interactive"), ("low", "batch")):
        serial.submit(replace(ask(PROMPT, id, max_tokens=8, task="text-generation"), work_class=work_class))
    serial.step()
    serial.step()
    assert serial.usage()["low"].tokens > 0, "it was owed something"
    assert serial.preempt("a") and not serial.preempt("nobody")
    assert ended(serial)[0] == "b"


def test_the_state_of_a_request_is_counted_while_it_runs(serial: SerialRunner) -> None:
    serial.submit(ask(PROMPT, "a", max_tokens=3, task="text-generation"))
    assert serial.kv_bytes() == 0
    serial.step()
    held = serial.kv_bytes()
    serial.step()
    assert 0 < held < serial.kv_bytes()
    serial.cancel(["a"])
    assert serial.kv_bytes() == 0 and not serial.busy


def test_its_prediction_is_for_the_request_whose_turn_it_is(serial: SerialRunner) -> None:
    assert serial.step_seconds() == 0.0
    serial.submit(ask(PROMPT, "a", max_tokens=2, task="text-generation"))
    short = serial.step_seconds()
    serial.close()
    serial.submit(ask(PROMPT * 4, "b", max_tokens=2, task="text-generation"))
    assert 0.0 < short < serial.step_seconds()
