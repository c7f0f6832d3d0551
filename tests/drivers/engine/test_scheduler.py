"""The step scheduler: no row is lost or run twice, nobody waits for ever, and streams keep their pace."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest
from fake_runner import FakeRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from llmos.drivers.engine.costs import Speed, StepLoad
from llmos.drivers.engine.scheduler import StepLimits
from llmos.drivers.engine.steps import PAGE_TOKENS, Row

SMALL = StepLimits(rows=4, tokens=64, chunk=32, aging=5.0)
NUMBER = itertools.count()


def prompt(tokens: int, first: int = 0) -> list[int]:
    return [first + at for at in range(tokens)]


def row(tokens: int, id: str = "", first: int | None = None, priority: int = 0, deadline: float | None = None) -> Row:
    """A row whose prompt is like no other, unless `first` says so."""
    number = next(NUMBER)
    start = 10_000 * (number + 1) if first is None else first
    return Row(id or f"row {number}", prompt(tokens, start), priority=priority, deadline=deadline)


def planned(runner: FakeRunner) -> dict[str, int]:
    """The next step: ids and how many tokens."""
    return {step.row.id: step.count for step in runner.step().rows}


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


@pytest.mark.parametrize("streams", [1, 4, 8, 16])
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


# ---- pages


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


# ---- what a row may ask


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


# ---- anything in any order


class Serving(RuleBasedStateMachine):
    """Rows come, share, speculate, are cancelled and kept; steps fail; memory is short. In the end all are served."""

    @initialize(pages=st.integers(5, 14), host_pages=st.sampled_from([0, 4, 12]), rows=st.integers(1, 4))
    def begin(self, pages: int, host_pages: int, rows: int) -> None:
        self.runner = FakeRunner(pages, host_pages, StepLimits(rows=rows, tokens=64, chunk=32, aging=2.0))
        self.added = 0
        self.ended = 0

    which = st.integers(0, 7)

    def pick(self, which: int) -> Row:
        return list(self.runner.jobs)[which % len(self.runner.jobs)]

    @precondition(lambda self: len(self.runner.jobs) < 8)
    @rule(
        parts=st.lists(st.integers(0, 1), max_size=4), tail=st.sampled_from([1, 2, 15, 16]), wanted=st.integers(1, 24),
        priority=st.integers(-1, 1), due=st.none() | st.floats(0.0, 8.0), copies=st.sampled_from([1, 1, 1, 3]),
        every=st.sampled_from([False, False, False, True]), salt=st.sampled_from([b"", b"", b"x"]),
    )  # fmt: skip
    def add(
        self, parts: list[int], tail: int, wanted: int, priority: int, due: float | None, copies: int, every: bool,
        salt: bytes,
    ) -> None:  # fmt: skip
        for _ in range(copies):
            self.added += 1
            tokens = [part for part in parts for _ in range(PAGE_TOKENS)] + [3] * tail
            deadline = None if due is None else self.runner.now + due
            item = Row(str(self.added), tokens, salt, priority, deadline, all_logits=every)
            self.runner.add(item, wanted)

    @rule(steps=st.integers(1, 12), drafts=st.integers(0, 4), wrong=st.integers(0, 4))
    def steps(self, steps: int, drafts: int, wrong: int) -> None:
        for _ in range(steps):
            for item, job in self.runner.jobs.items():
                end = len(item.tokens)
                item.drafts = [job.truth(end + at) if at < wrong else 99 for at in range(drafts)]
            self.runner.step()

    @rule()
    def fail(self) -> None:
        self.runner.step(fails=True)

    @rule(seconds=st.sampled_from([0.5, 3.0]))
    def wait(self, seconds: float) -> None:
        self.runner.now += seconds

    @precondition(lambda self: self.runner.jobs)
    @rule(which=which)
    def cancel(self, which: int) -> None:
        self.runner.take(self.pick(which))
        self.ended += 1

    @precondition(lambda self: self.runner.jobs)
    @rule(which=which)
    def keep(self, which: int) -> None:
        self.runner.take(self.pick(which), keep=True)
        self.ended += 1

    @precondition(lambda self: self.runner.resting and len(self.runner.jobs) < 8)
    @rule(which=which, back=st.sampled_from([0, 1, 5, 20]), wanted=st.integers(1, 9))
    def go_on(self, which: int, back: int, wanted: int) -> None:
        self.added += 1
        kept = self.runner.resting[which % len(self.runner.resting)]
        item = self.runner.blocks.fork(kept, str(self.added))
        length = max(0, len(item.tokens) - back)
        self.runner.blocks.truncate(item, length)
        item.tokens[length:] = [4] * 3
        item.deadline = None
        self.runner.add(item, wanted)

    @rule(salt=st.sampled_from([b"x", b"x", b""]))
    def forget(self, salt: bytes) -> None:
        self.runner.blocks.forget_salt(salt)

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        runner = self.runner
        runner.run(600)
        assert self.added == self.ended + len(runner.done) + len(runner.expired) + len(runner.refused)
        for job in runner.done:
            assert job.made >= job.wanted
            assert job.row.tokens[job.prompt :] == [job.truth(at) for at in range(job.prompt, len(job.row.tokens))]
            assert not job.row.all_logits or job.scored == list(range(job.prompt))
        for item in runner.resting:
            runner.memory.check(item)
            runner.blocks.release(item)
        runner.blocks.take_transfers()
        assert (runner.blocks.used, runner.blocks.host_used) == (0, 0)


Serving.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestServing = Serving.TestCase
