"""The step scheduler when pages are short: who gives its own, who waits, who is refused."""

from __future__ import annotations

from fake_runner import FakeRunner, planned, row

from llmos.drivers.engine.costs import Speed
from llmos.drivers.engine.scheduler import StepLimits


def test_the_least_urgent_row_gives_its_pages_and_comes_back_first() -> None:
    runner = FakeRunner(6)
    old, young = runner.add(row(30, "old"), 40), runner.add(row(30, "young"), 40)
    while not runner.preempted:
        runner.step()
    assert runner.preempted == [young.row]
    assert (young.row.pages, young.row.computed) == ([], 0)
    runner.add(row(10, "new"))
    before = young.steps
    while young.steps == before:
        assert "new" not in {step.row.id for step in runner.step().rows} or young.steps > before
    runner.run()
    assert (old.made, young.made, runner.preempted) == (40, 40, [young.row])
    assert young.row.cached == 0, "what it had computed itself does not count"


def test_a_row_that_has_much_computed_waits_in_host_memory() -> None:
    runner = FakeRunner(12, host_pages=12)
    runner.add(row(80, "old"), 40)
    young = runner.add(row(80, "young"), 40)
    while not runner.preempted:
        runner.step()
    assert young.row.host_pages
    assert young.row.computed >= 80
    before = runner.computed
    runner.run()
    assert runner.computed - before <= 80, "nothing is computed again"
    assert runner.blocks.host_used == 0


def test_what_moves_more_slowly_than_it_is_computed_does_not_wait_in_host_memory() -> None:
    runner = FakeRunner(12, host_pages=12, speed=Speed(host_bytes=1e6))
    runner.add(row(80, "old"), 40)
    young = runner.add(row(80, "young"), 40)
    while not runner.preempted:
        runner.step()
    assert (young.row.host_pages, young.row.computed) == ([], 0)
    runner.run()


def test_a_more_urgent_prompt_takes_the_pages_it_needs() -> None:
    runner = FakeRunner(9)
    runner.add(row(50, "a"), 12)
    less = runner.add(row(50, "b"), 12)
    runner.step()
    urgent = runner.add(row(64, "urgent", priority=1), 2)
    assert set(planned(runner)) == {"urgent", "a"}
    assert runner.preempted == [less.row]
    runner.run()
    assert runner.done[0] is urgent


def test_a_row_keeps_a_page_that_it_shares_with_a_less_urgent_one() -> None:
    runner = FakeRunner(2)
    job = runner.add(row(20), 2)
    runner.step()
    runner.take(job.row, keep=True)
    runner.resting.clear()
    fork = runner.blocks.fork(job.row, "fork")
    job.row.priority = 1
    runner.add(job.row, 5)
    runner.add(fork, 5)
    assert planned(runner) == {job.row.id: 1}
    assert runner.preempted == [fork]


def test_a_row_whose_own_pages_are_in_its_way_computes_some_again() -> None:
    """All pages are its own, and one of them, which others may find, would have to be copied."""
    runner = FakeRunner(2)
    job = runner.add(row(32), 5)
    runner.step()
    runner.take(job.row, keep=True)
    runner.resting.clear()
    del job.row.tokens[28:]
    again = runner.add(job.row, 4)
    runner.run()
    assert again in runner.done
    assert runner.preempted == [job.row]


def test_prompts_take_pages_only_when_their_turn_is_near() -> None:
    runner = FakeRunner(100, limits=StepLimits(rows=8, tokens=64, chunk=32))
    jobs = [runner.add(row(60)) for _ in range(5)]
    runner.step()
    assert [bool(job.row.pages) for job in jobs] == [True, True, False, False, False]


def test_a_row_that_would_soon_be_pushed_out_again_does_not_start() -> None:
    runner = FakeRunner(16)
    for _ in range(2):
        runner.add(row(60), 60)
    runner.step()
    runner.add(row(100), 2)
    runner.run()
    assert len(runner.done) == 3
    assert runner.preempted == []


def test_nobody_is_preempted_for_a_row_that_would_not_fit_all_the_same() -> None:
    runner = FakeRunner(8)
    runner.add(row(60, "urgent", priority=2), 10)
    runner.add(row(10, "small"), 5)
    runner.step()
    runner.add(row(100, "large", priority=1))
    counts = planned(runner)
    assert set(counts) == {"urgent", "small"}
    assert runner.preempted == []
    runner.run()


def test_a_row_that_never_fits_is_refused_and_one_that_is_late_is_told() -> None:
    runner = FakeRunner(4)
    large, late = runner.add(row(65)), runner.add(row(20, deadline=runner.now - 1.0))
    fits = runner.add(row(63))
    runner.run()
    assert (runner.refused, runner.expired, runner.done) == ([large], [late], [fits])


def test_a_row_that_outgrows_all_pages_is_refused() -> None:
    runner = FakeRunner(2)
    job = runner.add(row(30), 10)
    runner.run()
    assert runner.refused == [job]
    assert (job.made, runner.blocks.used) == (3, 0)
