"""Models that nobody uses go to sleep."""

from __future__ import annotations

import pytest
from scripted import Inside, Program

from llmos.syscalls.errors import NotSupported


@pytest.fixture
def model(program: Program) -> int:
    return program.load("tiny")


def test_an_idle_model_goes_to_sleep(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "keep_alive", seconds=5)
    kernel.advance(4)
    assert program.state(model) == "awake"
    kernel.advance(2)
    info = program.call("stat_object", handle=model)
    assert info["state"] == "asleep" and info["fields"]["keep_alive"] == 5 and info["reasons"]


def test_a_pinned_model_stays(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "keep_alive", seconds=5)
    assert program.control(model, "pin")["fields"]["pinned"] is True
    kernel.advance(60)
    assert program.state(model) == "awake"
    program.control(model, "unpin")
    kernel.advance(60)
    assert program.state(model) == "asleep"


def test_a_device_that_cannot_sleep_is_asked_once(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.answers["sleep"] = NotSupported("no")
    program.control(model, "keep_alive", seconds=1)
    kernel.advance(2)
    kernel.advance(20)
    assert kernel.null.names().count("sleep") == 1 and program.state(model) == "awake"


def test_a_device_that_dies_while_an_idle_model_falls_asleep(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.holds.add("sleep")
    program.control(model, "keep_alive", seconds=1)
    kernel.advance(2)
    kernel.null.dies()
    assert program.state(model) == "cold", "nobody used it, so its driver does not load it again when it is back"
    kernel.null.holds.discard("sleep")
    kernel.null.starts()
    assert program.state(model) == "cold" and kernel.null.names().count("load") == 1
    number = program.start(model, "x")
    kernel.null.release("submit")
    assert program.wait(number).error is None and kernel.null.names().count("load") == 2
