"""Classes of work in the step scheduler: strictly one before the other at each step, and none stands still."""

from __future__ import annotations

import pytest
from fake_runner import FakeRunner, Job, planned, row, seconds_of
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.drivers.engine.costs import StepLoad
from llmos.drivers.engine.places import StepLimits
from llmos.drivers.engine.turns import CALM

FOUR = StepLimits(rows=4, tokens=64, chunk=32)


def batch(runner: FakeRunner, rows: int, wanted: int, tokens: int = 20, rank: int = 1) -> list[Job]:
    """So many rows of a lower class that decode."""
    jobs = [runner.add(row(tokens, f"{rank}-{at}", rank=rank), wanted) for at in range(rows)]
    while not all(job.streams for job in jobs):
        runner.step()
    return jobs


def test_an_interactive_row_starts_with_the_next_step_although_all_rows_are_taken() -> None:
    runner = FakeRunner(100, limits=FOUR)
    jobs = batch(runner, 4, 60)
    held = [list(job.row.pages) for job in jobs]
    urgent = runner.add(row(20, "urgent"), 3)
    assert planned(runner)["urgent"] == 20
    assert not runner.preempted
    assert all(job.row.pages[: len(its)] == its for job, its in zip(jobs, held, strict=True)), "parked with its pages"
    while urgent not in runner.done:
        assert "urgent" in planned(runner)
    before = runner.computed
    runner.run()
    left = sum(job.wanted + 20 for job in jobs) - 4
    assert runner.computed - before <= left and not runner.preempted, "nothing is computed again"


def test_the_youngest_row_is_parked_and_goes_on_where_it_was() -> None:
    runner = FakeRunner(100, limits=FOUR)
    jobs = batch(runner, 4, 60)
    made = [job.made for job in jobs]
    urgent = runner.add(row(4, "urgent"), 2)
    while urgent not in runner.done:
        runner.step()
    assert jobs[3].made == made[3] and jobs[0].made > made[0]
    runner.step()
    assert jobs[3].made == made[3] + 1


@pytest.mark.parametrize("priority", [0, 50])
def test_class_goes_before_priority_deadline_and_arrival(priority: int) -> None:
    runner = FakeRunner(100, limits=StepLimits(rows=1, tokens=64, chunk=32))
    runner.scheduler.set_budget({"batch": 0.0, "background": 0.0})
    for rank in (2, 1, 0):
        deadline = runner.now + 1e4 if rank else None
        runner.add(row(8, str(rank), rank=rank, priority=priority * rank, deadline=deadline))
    order = [next(iter(planned(runner))) for _ in range(3)]
    assert order == ["0", "1", "2"]


def test_lower_work_does_not_hold_up_a_prompt_nor_a_stream() -> None:
    runner = FakeRunner(800)
    batch(runner, 60, 400)
    urgent = runner.add(row(200, "urgent"), 12)
    while urgent not in runner.done:
        plan = runner.step()
        if plan.turn is not None:
            continue
        own = StepLoad.of(step for step in plan.rows if step.row.rank == 0)
        whole = StepLoad.of(plan.rows)
        assert own.tokens and whole.tokens > own.tokens, "there is room for some of them beside it"
        assert seconds_of(whole) <= 1.6 * seconds_of(own)
    assert urgent.steps <= 14


def test_a_long_prompt_of_lower_work_waits_while_higher_work_is_there() -> None:
    runner = FakeRunner(800)
    job = runner.add(row(4000, "long", rank=1), 1)
    runner.step()
    assert job.row.computed == 512
    stream = runner.add(row(20, "stream"), 30)
    runner.step()
    took = []
    while stream not in runner.done:
        before = runner.now
        runner.step()
        took.append(runner.now - before)
    alone = seconds_of(StepLoad().plus(30, 1, 1))
    assert max(took) <= alone + 1.6 * runner.limits.turn + 0.05, "also when it has its turn"
    assert job.row.computed > 512
    runner.run()


def test_batch_work_alone_keeps_its_steps_short_while_interactive_requests_come() -> None:
    """Who comes waits for the step under way."""
    runner = FakeRunner(800)
    streams = batch(runner, 4, 2000)
    for at in range(20):
        runner.add(row(16, f"first {at}"), 1)
        runner.step()
    begins = seconds_of(StepLoad().plus(0, 16, 1))
    long = runner.add(row(4000, "long", rank=1), 1)
    spent = []
    while long.row.computed < 3000:
        if len(spent) % 10 == 9:
            runner.add(row(16, f"later {len(spent)}"), 1)
        before = runner.now
        runner.step()
        spent.append(runner.now - before)
    assert max(spent) <= 1.7 * max(begins, seconds_of(StepLoad().plus(60, 4, 4)))
    for job in streams:
        runner.take(job.row)
    runner.step()
    assert long.row.computed < 3000 + 100
    runner.now += CALM + 1.0
    before = long.row.computed
    runner.step()
    assert long.row.computed == before + 512, "nobody is expected any more: what gives most goes"


def test_lower_work_is_brief_while_higher_work_waits_for_pages() -> None:
    runner = FakeRunner(60)
    runner.scheduler.set_budget({"recompute_tokens": 0.0})
    long = runner.add(row(800, "long", rank=1), 1)
    runner.step()
    waits = runner.add(row(300, "waits"), 1)
    before = runner.now
    assert set(planned(runner)) == {"long"}
    assert runner.now - before <= 1.6 * runner.limits.turn
    runner.run()
    assert runner.done == [long, waits], "it was not to be computed again"


@pytest.mark.parametrize("allowed", [0.0, 100.0, float("inf")])
def test_a_row_gives_its_pages_only_as_far_as_it_may_be_computed_again(allowed: float) -> None:
    runner = FakeRunner(12)
    runner.scheduler.set_budget({"recompute_tokens": allowed})
    low = runner.add(row(90, "low", rank=1), 20)
    runner.step()
    high = runner.add(row(150, "high"), 2)
    runner.run()
    again = runner.computed - 90 - 150 - 20 - 2 + 2
    assert again <= max(allowed, 0.0)
    first = low if allowed < 90 else high
    assert runner.done[0] is first


def test_a_row_that_can_wait_in_host_memory_gives_its_pages_whatever_may_be_computed_again() -> None:
    runner = FakeRunner(12, host_pages=12)
    runner.scheduler.set_budget({"recompute_tokens": 0.0})
    low = runner.add(row(90, "low", rank=1), 20)
    runner.step()
    high = runner.add(row(150, "high"), 2)
    runner.step()
    assert runner.preempted == [low.row] and low.row.host_pages
    runner.run()
    assert runner.done[0] is high and runner.computed == 90 + 150 + 20 + 2 - 2


def flood(runner: FakeRunner, rows: int, tokens: int = 8) -> None:
    """Keep so many interactive rows there."""
    while sum(item.rank == 0 for item in runner.jobs) < rows:
        runner.add(row(tokens), 5)


@pytest.mark.parametrize(("part", "steps"), [(0.1, 11), (0.4, 4)])
def test_a_lower_row_gets_its_part_beside_a_flood_of_higher_ones(part: float, steps: int) -> None:
    runner = FakeRunner(100, limits=FOUR)
    runner.scheduler.set_budget({"batch": part})
    low = runner.add(row(20, "low", rank=1), 10)
    waits, worst = 0, 0
    while low not in runner.done:
        flood(runner, 8)
        before = low.steps
        runner.step()
        waits = 0 if low.steps > before else waits + 1
        worst = max(worst, waits)
    assert worst <= steps


@pytest.mark.parametrize(("aging", "ends"), [(2.0, True), (1e9, False)])
def test_a_lower_row_that_came_no_further_for_long_gets_pages_and_keeps_them(aging: float, ends: bool) -> None:
    runner = FakeRunner(12, limits=StepLimits(rows=4, tokens=64, chunk=32, aging=aging))
    low = runner.add(row(40, "low", rank=1), 12)
    while low not in runner.done and runner.now < 130.0:
        flood(runner, 8, tokens=40)
        runner.step()
    assert (low in runner.done) is ends


def test_without_a_minimum_lower_work_waits() -> None:
    runner = FakeRunner(100, limits=FOUR)
    runner.scheduler.set_budget({"batch": 0.0})
    low = runner.add(row(20, "low", rank=1), 2)
    for _ in range(60):
        flood(runner, 8)
        runner.step()
    assert low.steps == 0


def test_a_row_that_is_deferred_lets_its_class_go_first() -> None:
    runner = FakeRunner(100, limits=FOUR)
    jobs = batch(runner, 4, 40)
    later = runner.add(row(8, "later", rank=1), 5)
    assert "later" not in planned(runner)
    runner.scheduler.defer(jobs[0].row)
    assert "later" in planned(runner)
    made, pages = jobs[0].made, list(jobs[0].row.pages)
    while later not in runner.done:
        runner.step()
    assert (jobs[0].made, jobs[0].row.pages) == (made, pages)
    runner.scheduler.defer(row(3, "stranger"))
    runner.run()


@given(
    coming=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 60), st.integers(1, 12), st.integers(0, 6)), min_size=1, max_size=24
    ),
    rows=st.integers(1, 4), pages=st.integers(8, 40), hosts=st.sampled_from([0, 20]),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_nothing_is_lost_and_no_class_stands_behind_a_lower_one_for_longer_than_a_step(
    coming: list[tuple[int, int, int, int]], rows: int, pages: int, hosts: int
) -> None:
    """With pages for all, a row that could take part does before any of a lower class, but in a turn of that."""
    runner = FakeRunner(pages, hosts, StepLimits(rows=rows, tokens=64, chunk=32))
    behind: dict[str, int] = {}
    for rank, tokens, wanted, pause in coming:
        runner.add(row(tokens, rank=rank), wanted)
        for _ in range(pause):
            check_order(runner, behind)
    for _ in range(3000):
        if not runner.jobs:
            break
        check_order(runner, behind)
    assert len(runner.done) == len(coming) and not runner.jobs
    assert len({job.row.id for job in runner.done}) == len(coming)
    for job in runner.done:
        assert job.row.tokens[job.prompt :] == [job.truth(at) for at in range(job.prompt, len(job.row.tokens))]


def check_order(runner: FakeRunner, behind: dict[str, int]) -> None:
    """One step: who holds its pages and decodes stands behind lower work for one step at most."""
    ready = {item.id: item.rank for item, job in runner.jobs.items() if job.streams and item.pages}
    plan = runner.step()
    taken = {step.row.id for step in plan.rows} | {item.id for item in plan.preempted}
    worst = max((step.row.rank for step in plan.rows), default=0)
    for id, rank in ready.items():
        overtaken = id not in taken and rank < worst and len(plan.rows) >= runner.limits.rows
        behind[id] = behind.get(id, 0) + 1 if overtaken else 0
        assert behind[id] <= 1, f"{id} of class {rank} stands behind class {worst} again"
