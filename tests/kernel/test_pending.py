"""Futures, jobs and timers of the kernel's loop."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.kernel.pending import Future, Job, Runner
from llmos.syscalls.errors import Busy, Cancelled, LlmosError, TimedOut


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Ends:
    """Collects how jobs end."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, LlmosError | None]] = []

    def __call__(self, value: Any, error: LlmosError | None) -> None:
        self.seen.append((value, error))


@pytest.fixture
def runner() -> Runner:
    return Runner(Clock())


async def wait_for(future: Future[Any]) -> Any:
    return await future


def test_a_job_that_never_waits_ends_at_once(runner: Runner) -> None:
    async def work() -> int:
        return 7

    ends = Ends()
    assert runner.spawn(work(), ends).finished
    assert ends.seen == [(7, None)]


def test_a_waiting_job_is_resumed_by_the_loop_and_not_from_inside_the_event(runner: Runner) -> None:
    future: Future[Any] = runner.future()
    ends = Ends()
    runner.spawn(wait_for(future), ends)
    future.set("late")
    assert ends.seen == []
    runner.run(0)
    assert ends.seen == [("late", None)]


def test_an_error_is_raised_where_the_job_waits(runner: Runner) -> None:
    future: Future[Any] = runner.future()
    ends = Ends()
    runner.spawn(wait_for(future), ends)
    failure = Busy("no")
    future.fail(failure)
    runner.run(0)
    assert ends.seen == [(None, failure)]
    assert future.failed_with(Busy)
    assert not future.failed_with(Cancelled)


def test_only_the_first_result_counts(runner: Runner) -> None:
    future: Future[Any] = runner.future()
    future.set(1)
    future.set(2)
    future.fail(Busy("late"))
    assert future.result() == 1


def test_awaiting_a_finished_future_does_not_wait(runner: Runner) -> None:
    future: Future[Any] = runner.future()
    future.set(3)
    ends = Ends()
    runner.spawn(wait_for(future), ends)
    assert ends.seen == [(3, None)]


def test_all_waiters_get_the_result(runner: Runner) -> None:
    future: Future[Any] = runner.future()
    ends = Ends()
    for _ in range(3):
        runner.spawn(wait_for(future), ends)
    future.set("x")
    runner.run(0)
    assert ends.seen == [("x", None)] * 3


def test_an_interrupt_is_raised_at_the_wait_and_beats_a_result_that_came_meanwhile(runner: Runner) -> None:
    future: Future[Any] = runner.future()
    ends = Ends()
    job = runner.spawn(wait_for(future), ends)
    future.set("result")
    stop = Cancelled("stop")
    runner.interrupt(job, stop)
    runner.run(0)
    assert ends.seen == [(None, stop)]


def test_an_interrupted_job_may_clean_up_and_wait_on(runner: Runner) -> None:
    first: Future[Any] = runner.future()
    second: Future[Any] = runner.future()

    async def work() -> Any:
        try:
            return await first
        except Cancelled:
            return await second

    ends = Ends()
    job = runner.spawn(work(), ends)
    runner.interrupt(job, Cancelled("stop"))
    runner.run(0)
    first.set("ignored")
    runner.run(0)
    assert ends.seen == []
    second.set("cleaned up")
    runner.run(0)
    assert ends.seen == [("cleaned up", None)]


def test_interrupting_a_finished_job_does_nothing(runner: Runner) -> None:
    async def work() -> int:
        return 1

    ends = Ends()
    job = runner.spawn(work(), ends)
    runner.interrupt(job, Cancelled("late"))
    runner.run(0)
    assert ends.seen == [(1, None)]


def test_a_closed_job_runs_its_finally_and_never_again(runner: Runner) -> None:
    future: Future[Any] = runner.future()
    cleaned: list[bool] = []

    async def work() -> None:
        try:
            await future
        finally:
            cleaned.append(True)

    ends = Ends()
    job = runner.spawn(work(), ends)
    future.set(1)
    job.close()
    runner.run(0)
    assert cleaned == [True]
    assert ends.seen == []


def test_a_bug_in_a_job_is_not_swallowed(runner: Runner) -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        runner.spawn(work(), Ends())


def test_timers_fire_in_order_of_time_when_due_and_not_when_cancelled(runner: Runner) -> None:
    fired: list[str] = []
    runner.at(20, lambda: fired.append("b"))
    runner.at(10, lambda: fired.append("a"))
    dropped = runner.at(5, lambda: fired.append("never"))
    dropped.cancel()
    assert runner.next_timer() == 10
    runner.run(9)
    assert fired == []
    runner.run(15)
    assert fired == ["a"]
    runner.run(20)
    assert fired == ["a", "b"]
    assert runner.next_timer() is None


def test_after_counts_from_now() -> None:
    clock = Clock()
    clock.now = 1_000
    runner = Runner(clock)
    runner.after(2.5, lambda: None)
    assert runner.next_timer() == 2_500_001_000


def test_a_job_interrupted_before_its_first_step_does_nothing_but_fail(runner: Runner) -> None:
    done: list[object] = []

    async def never() -> None:
        done.append("ran")

    job = Job(never(), lambda value, error: done.append(error))
    error = TimedOut("too late")
    runner.interrupt(job, error)
    runner.run(0)
    assert done == [error]
