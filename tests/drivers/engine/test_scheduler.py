"""The step scheduler: whose turn it is, what prompts that begin alike share, and streams that keep their pace."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from fake_runner import FakeRunner, planned, prompt, row
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.drivers.engine.costs import StepLoad
from llmos.drivers.engine.scheduler import StepLimits
from llmos.drivers.engine.steps import PAGE_TOKENS, Row


# ---- order


def test_a_prompt_goes_whole_when_nothing_decodes_and_in_chunks_when_it_is_long() -> None:
    runner = FakeRunner(100)
    runner.add(row(1200, "long"))
    assert [planned(runner) for _ in range(3)] == [{"long": 512}, {"long": 512}, {"long": 176}]
    assert [job.row.id for job in runner.done] == ["long"]


def test_several_prompts_share_a_step() -> None:
    runner = FakeRunner(100)
    for name in "abc":
        runner.add(row(250, name), 2)
    assert planned(runner) == {"a": 250, "b": 250, "c": 76}


def test_rows_that_decode_go_first_and_a_prompt_advances_beside_them() -> None:
    runner = FakeRunner(200)
    streams = [runner.add(row(20), 300) for _ in range(4)]
    for _ in range(runner.limits.settled):
        runner.step()
    runner.add(row(900, "prompt", priority=5))
    while "prompt" in {job.row.id for job in runner.jobs.values()}:
        counts = planned(runner)
        assert list(counts.values())[:-1] == [1] * 4
        assert counts["prompt"] >= runner.limits.least
    assert all(job.made > 10 + runner.limits.settled for job in streams)


def test_priority_goes_before_deadline_and_deadline_before_arrival() -> None:
    runner = FakeRunner(200, limits=StepLimits(rows=1, tokens=64, chunk=32))
    runner.add(row(8, "early"))
    runner.add(row(8, "later"))
    runner.add(row(8, "due", deadline=runner.now + 9.0))
    runner.add(row(8, "due first", deadline=runner.now + 8.0))
    runner.add(row(8, "important", priority=1))
    order = [next(iter(planned(runner))) for _ in range(5)]
    assert order == ["important", "due first", "due", "early", "later"]


def test_a_near_deadline_goes_before_earlier_arrival_and_not_before_priority() -> None:
    runner = FakeRunner(200, limits=StepLimits(rows=1, tokens=64, chunk=32))
    runner.add(row(300, "first", priority=1))
    runner.step()
    for name, due, priority in (("early", None, 0), ("due", 20.0, 0), ("far", 1000.0, 0), ("important", None, 1)):
        runner.add(row(8, name, deadline=None if due is None else runner.now + due, priority=priority))
        runner.step()
    runner.run()
    assert [job.row.id for job in runner.done] == ["first", "important", "due", "early", "far"]


def test_arrival_counts_among_rows_that_are_added_together() -> None:
    runner = FakeRunner(200, limits=StepLimits(rows=1, tokens=64, chunk=32))
    for arrived in (3, 1, 2):
        item = row(8, str(arrived))
        item.arrived = arrived
        runner.add(item)
    assert [next(iter(planned(runner))) for _ in range(3)] == ["1", "2", "3"]


@given(
    levels=st.integers(0, 2), rows=st.integers(1, 3), length=st.integers(1, 40), wanted=st.integers(1, 3),
    due=st.none() | st.floats(0.5, 20.0), pages=st.integers(3, 8),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_row_is_overtaken_only_by_those_that_enter_soon_enough_after_it(
    levels: int, rows: int, length: int, wanted: int, due: float | None, pages: int
) -> None:
    """However many more urgent rows keep coming: each is replaced by the next as soon as it ends."""
    limits = StepLimits(rows=rows, tokens=64, chunk=32, aging=0.5)
    runner = FakeRunner(pages, limits=limits)
    runner.device = lambda load: 0.05

    def rival() -> None:
        deadline = None if due is None else runner.now + due
        rivals[(item := row(length, priority=levels, deadline=deadline)).id] = runner.now
        runner.add(item, wanted)

    rivals: dict[str, float] = {}
    for _ in range(rows + 1):
        rival()
    runner.step()
    victim, entered = runner.add(row(20), 2), runner.now
    bound = (2 * levels + 1) * limits.aging
    for _ in range(2000):
        steps = victim.steps
        shown = planned(runner)
        started = any(victim.row is step for step in runner.jobs) and victim.steps == steps
        if started and victim.row.deadline is None:
            late = [id for id in shown if id in rivals and rivals[id] > entered + bound]
            assert not late, "a row that came too late went first"
        if victim in runner.done:
            break
        while len(runner.jobs) < rows + 2:
            rival()
    assert victim in runner.done
    ahead = sum(1 for at in rivals.values() if at <= entered + bound)
    assert runner.now - entered <= bound + 0.05 * (ahead + 2) * (wanted + length // PAGE_TOKENS + 4)


# ---- time


def stream(runner: FakeRunner, rows: int, steps: int = 20) -> None:
    """So many rows decode, and their pace is known."""
    jobs = [runner.add(row(100), 1000) for _ in range(rows)]
    while not all(job.streams for job in jobs):
        runner.step()
    for _ in range(steps):
        runner.step()
    runner.stretched.clear()


SLOW = pytest.mark.slow


@pytest.mark.parametrize("streams", [1, pytest.param(4, marks=SLOW), 8, pytest.param(16, marks=SLOW)])
def test_a_long_prompt_does_not_hold_up_running_streams(streams: int) -> None:
    """Each gap between their tokens is compared with what it would be at that time without the prompt."""
    runner, draw = FakeRunner(1500), random.Random(7)
    runner.noise = lambda: math.exp(draw.gauss(0.0, 0.03))
    stream(runner, streams)
    long = runner.add(row(4096), 1)
    while long not in runner.done:
        runner.step()
    held = sorted(runner.stretched)
    assert held[int(0.95 * len(held))] <= 1.6
    assert statistics.median(held) >= 1.3, "what time is left goes to the prompt"


def test_streams_do_not_hold_up_a_larger_number_of_prompts() -> None:
    runner = FakeRunner(400)
    stream(runner, 4)
    few = [runner.add(row(128), 1) for _ in range(4)]
    assert sum(planned(runner).values()) < 4 + 128, "as many wait as decode: the streams keep their pace"
    runner.add(row(128), 1)
    assert sum(planned(runner).values()) > 4 + 3 * 128
    while not all(job in runner.done for job in few):
        runner.step()
    assert runner.stretched[-1] < 2.0


def test_streams_that_have_just_begun_let_prompts_that_came_with_them_catch_up() -> None:
    runner = FakeRunner(400)
    jobs = [runner.add(row(128), 40) for _ in range(16)]
    for _ in range(runner.limits.settled):
        runner.step()
    assert all(job.streams for job in jobs)


def test_a_step_stays_within_its_seconds_while_rows_decode() -> None:
    runner = FakeRunner(1000, limits=StepLimits(seconds=0.01))
    stream(runner, 2)
    runner.add(row(500, "prompt"))
    assert planned(runner)["prompt"] == runner.limits.least


def test_what_the_next_step_takes_is_told() -> None:
    runner = FakeRunner(100)
    assert runner.scheduler.step_seconds() == 0.0
    for _ in range(6):
        runner.add(row(400), 2)
    told, before = runner.scheduler.step_seconds(), runner.cost.seconds
    plan = runner.scheduler.plan(runner.now)
    assert told == pytest.approx(before(StepLoad.of(plan.rows)), rel=0.2)


# ---- the same prompt


def test_a_prompt_that_many_ask_is_computed_once() -> None:
    runner = FakeRunner(100)
    jobs = [runner.add(row(100, str(at), first=0), 4) for at in range(5)]
    assert planned(runner) == {"0": 100}
    assert planned(runner) == {"0": 1, "1": 1, "2": 1, "3": 1, "4": 1}
    assert [job.row.cached for job in jobs] == [0, 99, 99, 99, 99]
    runner.run()
    assert len(runner.done) == 5


def test_rows_wait_for_a_beginning_that_another_computes_and_for_no_more() -> None:
    runner = FakeRunner(100, limits=StepLimits(rows=4, tokens=80, chunk=64))
    long = runner.add(row(300, "long", first=0))
    branch = Row("branch", [*prompt(100), *prompt(40, 5000)])
    runner.add(branch)
    while "branch" not in planned(runner):
        pass
    assert branch.cached == 96
    assert long.row.computed < 300


def test_nobody_waits_for_a_less_urgent_row_or_one_that_has_gone() -> None:
    runner = FakeRunner(100, limits=StepLimits(rows=4, tokens=48, chunk=32))
    leader = runner.add(row(200, "leader", first=0))
    runner.step()
    runner.add(row(200, "urgent", first=0, priority=1))
    assert next(iter(planned(runner))) == "urgent"
    runner.add(row(200, "other", first=0))
    for name in ("urgent", "leader"):
        runner.take(next(item for item in runner.jobs if item.id == name))
    assert planned(runner)["other"] == 32
    assert leader.made == 0
