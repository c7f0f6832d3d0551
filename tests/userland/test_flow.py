"""A flow yields calls and is sent results."""

from __future__ import annotations

import pytest

from llmos.syscalls.calls import ListDir
from llmos.syscalls.errors import NotFound
from llmos.userland.flow import Flow, Step, ask


def flow() -> Flow[int]:
    first = yield from ask(ListDir(path="/"))
    return len(first)


def test_a_step_is_one_call_and_the_result_comes_back() -> None:
    running = flow()
    step = next(running)
    assert isinstance(step, Step) and step.call == ListDir(path="/")
    with pytest.raises(StopIteration) as stop:
        running.send([1, 2])
    assert stop.value.value == 2


def test_an_error_is_raised_at_the_step() -> None:
    running = flow()
    next(running)
    with pytest.raises(NotFound):
        running.throw(NotFound("x"))
