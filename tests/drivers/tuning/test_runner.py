"""A job among runners: a slice is a step, classes and shares apply, and it can stand still."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.drivers.contract import Prompt, Request
from llmos.drivers.engine.runner import Runner
from llmos.drivers.engine.sharing import Sharing
from llmos.drivers.tuning.runner import TuneRunner
from llmos.drivers.tuning.slices import Slices, Yield
from llmos.syscalls.errors import NotSupported


class Job:
    """Work of so many turns, and what was told of it."""

    def __init__(self, turns: int = 5, fails: bool = False, work_class: str = "background") -> None:
        self.done = 0
        self.turns, self.fails = turns, fails
        self.request = Request("t1", "m", Prompt(), work_class=work_class)
        self._events: list[Any] = []
        self.slices = Slices(self._work)
        self.runner = TuneRunner(self.request, self.slices, self._told, lambda error: [("end", error)], slice_s=0.0)

    def _work(self, yield_: Yield) -> None:
        for number in range(self.turns):
            self.done += 1
            self._events.append(number)
            yield_()
        if self.fails:
            raise ValueError("no")

    def _told(self) -> list[Any]:
        told, self._events = self._events, []
        return told


class Busy:
    """A runner whose requests take steps for ever."""

    def __init__(self, work_class: str = "interactive") -> None:
        self.steps = 0
        self._requests = (Request("r1", "m", Prompt(), work_class=work_class),)

    busy = True

    def step(self) -> list[Any]:
        self.steps += 1
        return []

    def requests(self) -> tuple[Request, ...]:
        return self._requests

    def set_budget(self, budget: Any) -> None:
        """It takes none."""


def test_it_is_a_runner() -> None:
    runner: Runner = Job().runner
    assert runner.rung == "tune" and runner.tasks == () and runner.usage() == {} and runner.step_seconds() == 0.0
    with pytest.raises(NotSupported):
        runner.submit(Request("r", "m", Prompt()))


def test_a_step_is_a_slice_and_tells_what_happened() -> None:
    job = Job(turns=2)
    assert job.runner.busy and list(job.runner.requests()) == [job.request]
    assert job.runner.step() == [0] and job.runner.step() == [1]
    assert job.runner.step() == [("end", None)]
    assert not job.runner.busy and list(job.runner.requests()) == []


def test_what_it_raises_comes_with_the_end() -> None:
    job = Job(turns=1, fails=True)
    assert job.runner.step() == [0]
    ((word, error),) = job.runner.step()
    assert word == "end" and isinstance(error, ValueError)


def test_cancelled_it_ends_at_once_and_only_once() -> None:
    job = Job()
    job.runner.step()
    assert job.runner.cancel({"other"}) == [] and job.runner.busy
    assert job.runner.cancel({"t1"}) == [("end", None)] and not job.runner.busy
    assert job.runner.cancel({"t1"}) == [] and job.done == 1


def test_held_it_is_not_busy_and_goes_on_where_it_was() -> None:
    job = Job(turns=3)
    job.runner.step()
    job.runner.hold()
    assert not job.runner.busy and list(job.runner.requests()) == [job.request], "it is there, and wants no time"
    job.runner.go_on()
    assert job.runner.busy and job.runner.step() == [1]
    job.runner.close()


def test_the_budget_says_how_long_a_slice_is() -> None:
    job = Job()
    job.runner.set_budget({"background": 0.2})
    assert job.runner.step_seconds() == 0.0
    job.runner.set_budget({"slice_s": 3.0})
    assert job.runner.step_seconds() == 3.0 and job.runner.step() == [0, 1, 2, 3, 4, ("end", None)]


def test_it_stands_back_only_for_its_own_name() -> None:
    job = Job()
    assert job.runner.preempt("t1") and not job.runner.preempt("r1")


def test_beside_requests_it_gets_what_its_class_is_owed() -> None:
    """Interactive work wants every step: background gets its part, counted in time."""
    job, busy, sharing = Job(turns=10_000), Busy(), Sharing()
    runner: Any = job.runner
    other: Any = busy
    sharing.add(other)
    sharing.add(runner)
    sharing.set_budget({"background": 0.25, "batch": 0.0})
    mine = 0
    for _ in range(400):
        chosen = sharing.next()
        assert chosen is not None
        mine += chosen is runner
        sharing.stepped(chosen, 1.0)
    assert 95 <= mine <= 105
    sharing.remove(other)
    sharing.stepped(runner, 1.0)
    assert sharing.next() is runner, "alone it has all"
    job.runner.close()
