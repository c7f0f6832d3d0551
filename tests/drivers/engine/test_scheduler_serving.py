"""The step scheduler under anything in any order: no row is lost or run twice, no page is left behind."""

from __future__ import annotations

from fake_runner import FakeRunner
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from llmos.drivers.engine.scheduler import StepLimits
from llmos.drivers.engine.steps import PAGE_TOKENS, Row


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
        rank=st.sampled_from([0, 0, 1, 2]),
    )  # fmt: skip
    def add(
        self, parts: list[int], tail: int, wanted: int, priority: int, due: float | None, copies: int, every: bool,
        salt: bytes, rank: int,
    ) -> None:  # fmt: skip
        for _ in range(copies):
            self.added += 1
            tokens = [part for part in parts for _ in range(PAGE_TOKENS)] + [3] * tail
            deadline = None if due is None else self.runner.now + due
            item = Row(str(self.added), tokens, salt, priority, deadline, all_logits=every, rank=rank)
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
    def defer(self, which: int) -> None:
        self.runner.scheduler.defer(self.pick(which))

    @rule(tokens=st.sampled_from([0.0, 20.0, float("inf")]), batch=st.sampled_from([0.0, 0.1, 0.5]))
    def budget(self, tokens: float, batch: float) -> None:
        self.runner.scheduler.set_budget({"batch": batch, "recompute_tokens": tokens})

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


Serving.TestCase.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=40, deadline=None)
TestServing = Serving.TestCase
