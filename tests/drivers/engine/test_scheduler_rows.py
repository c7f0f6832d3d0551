"""The step scheduler: what a row may ask of it, from drafts to all logits, and what it keeps when it goes."""

from __future__ import annotations

import pytest
from fake_runner import FakeRunner, planned, prompt, row

from llmos.drivers.engine.scheduler import StepLimits
from llmos.drivers.engine.steps import Row


def test_all_logits_are_given_once_each_even_when_computed_again_in_other_parts() -> None:
    runner = FakeRunner(8, limits=StepLimits(rows=3, tokens=64, chunk=31))
    runner.add(row(70, first=0))
    runner.run()
    item = row(70, first=0)
    item.all_logits = True
    job = runner.add(item, 3)
    for _ in range(2):
        runner.step()
    runner.add(row(50, priority=1))
    runner.add(row(8, priority=1), 30)
    runner.step()
    assert (runner.preempted, job.scored) == ([item], list(range(62)))
    runner.run()
    assert job.scored == list(range(70))
    assert item.cached == 0


def test_a_row_that_wants_all_logits_waits_for_nobody() -> None:
    runner = FakeRunner(20)
    runner.add(row(40, "a", first=0))
    item = row(40, "b", first=0)
    item.all_logits = True
    runner.add(item)
    assert planned(runner) == {"a": 40, "b": 40}


def test_right_drafts_are_kept_and_wrong_ones_forgotten() -> None:
    runner = FakeRunner(20)
    job = runner.add(row(30), 12)
    runner.step()
    right = [job.truth(at) for at in range(31, 34)]
    job.row.drafts = [*right, 99]
    (step,) = runner.step().rows
    assert (step.count, step.logits, step.drafts) == (5, 5, 4)
    assert (job.made, job.row.computed) == (5, 34)
    runner.run()
    assert job.row.tokens[30:] == [job.truth(at) for at in range(30, 42)]


def test_rejected_drafts_leave_no_pages_behind() -> None:
    runner = FakeRunner(20)
    job = runner.add(row(30), 12)
    job.row.drafts = [99] * 40
    runner.step()
    assert len(job.row.pages) == 2
    job.row.drafts = [99] * 40
    (step,) = runner.step().rows
    assert (step.drafts, len(job.row.pages), runner.blocks.used) == (40, 2, 2)


def test_drafts_share_what_tokens_a_step_has_left() -> None:
    runner = FakeRunner(20, limits=StepLimits(rows=3, tokens=24, chunk=16))
    jobs = [runner.add(row(16), 9) for _ in range(2)]
    while not all(job.streams for job in jobs):
        runner.step()
    for job in jobs:
        job.row.drafts = [99] * 20
    assert [step.drafts for step in runner.step().rows] == [20, 2]
    for job in jobs:
        job.row.drafts = [99] * 20
    runner.add(row(40))
    assert [step.count for step in runner.step().rows] == [19, 1, 4]


def test_drafts_take_no_pages_from_others() -> None:
    runner = FakeRunner(4)
    one, other = runner.add(row(17), 9), runner.add(row(17), 9)
    while not (one.streams and other.streams):
        runner.step()
    one.row.drafts, other.row.drafts = [99] * 20, [99] * 3
    plan = runner.step()
    assert [step.drafts for step in plan.rows] == [0, 3]
    assert not plan.preempted


def test_a_conversation_goes_on_from_its_pages() -> None:
    runner = FakeRunner(20)
    job = runner.add(row(40), 5)
    while job.made < 4:
        runner.step()
    runner.take(job.row, keep=True)
    assert len(job.row.pages) == 3
    follow = runner.blocks.fork(job.row, "follow")
    follow.tokens += prompt(20, 70_000)
    runner.add(follow, 2)
    assert planned(runner) == {"follow": 44 + 20 - 43}
    assert follow.cached == 43
    runner.run()
    runner.memory.check(job.row)


def test_it_tells_how_many_pages_conversations_should_make_room_for() -> None:
    runner = FakeRunner(4)
    job = runner.add(row(60), 5)
    runner.step()
    runner.take(job.row, keep=True)
    assert (runner.blocks.available, runner.scheduler.wanted_pages()) == (0, 0)
    runner.add(row(30, "next"))
    assert runner.scheduler.wanted_pages() >= 2
    assert planned(runner) == {"next": 30}
    assert runner.resting == []


def test_a_cancelled_row_keeps_only_what_is_computed() -> None:
    runner = FakeRunner(20, limits=StepLimits(rows=2, tokens=64, chunk=32))
    job = runner.add(row(100))
    runner.step()
    assert len(job.row.pages) == 7
    runner.take(job.row, keep=True)
    assert (job.row.computed, len(job.row.pages), runner.blocks.used) == (32, 2, 2)


def test_the_last_token_is_computed_even_if_all_are() -> None:
    runner = FakeRunner(20)
    job = runner.add(row(32), 5)
    while job.made < 2:
        runner.step()
    runner.take(job.row, keep=True)
    again = runner.blocks.fork(job.row, "again")
    del again.tokens[32:]
    runner.add(again, 2)
    assert planned(runner) == {"again": 1}
    runner.run()


def test_mistakes_of_the_caller_are_told() -> None:
    runner = FakeRunner(4)
    runner.add(row(5, "a"))
    for wrong in (row(5, "a"), Row("empty", [])):
        with pytest.raises(ValueError, match="tokens"):
            runner.scheduler.add(wrong)
    runner.scheduler.remove(row(5, "a"))
    assert planned(runner) == {"a": 5}, "another row with its id"
    for fields in ({"rows": 0}, {"least": 0}, {"chunk": 3}, {"rows": 64, "tokens": 67}):
        with pytest.raises(ValueError, match="too little"):
            StepLimits(**fields)
