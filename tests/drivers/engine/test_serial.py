"""The serial runner: one request after the other, and what it holds for conversations."""

from __future__ import annotations

import pytest
from tiny_models import PROMPT, ask

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
