"""A runner without a model: carries the scheduler's plans out on pages that know what should stand in them.

Every plan is checked on the way: what it promises about bounds and order, and that each token of each row is computed
once, at its place, after all tokens before it. Time is simulated.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from fake_pages import FakePages, check_cells

from llmos.drivers.engine.blocks import BlockManager, pages_for
from llmos.drivers.engine.costs import Speed, StepCost, StepLoad, Work
from llmos.drivers.engine.scheduler import StepLimits, StepScheduler
from llmos.drivers.engine.steps import PAGE_TOKENS, Row, RowStep, StepPlan

NUMBER = itertools.count()
WORK = Work(weight_bytes=1e9, token_flops=1e9, key_bytes=24_000)


def seconds_of(load: StepLoad) -> float:
    """What a step takes on the simulated device."""
    return 0.004 + max(0.055, 0.0042 * load.tokens) + 2e-6 * load.keys + 4e-7 * load.pairs


@dataclass(eq=False)
class Job:
    """A row that is to get `wanted` tokens after its prompt."""

    row: Row
    prompt: int
    wanted: int
    scored: list[int] = field(default_factory=list)
    """Positions of the prompt whose logits were given."""
    steps: int = 0
    """In how many plans it was."""

    @property
    def made(self) -> int:
        return len(self.row.tokens) - self.prompt

    @property
    def streams(self) -> bool:
        return self.made > 0 and self.row.computed == len(self.row.tokens) - 1

    def truth(self, position: int) -> int:
        """The token that the model would choose there."""
        return (7 * position + self.prompt) % 5


class FakeRunner:
    """Rows, their pages, and the clock."""

    def __init__(
        self, pages: int, host_pages: int = 0, limits: StepLimits | None = None, speed: Speed | None = None
    ) -> None:
        self.limits = limits or StepLimits()
        self.blocks = BlockManager(pages, host_pages)
        self.cost = StepCost(WORK, speed)
        self.scheduler = StepScheduler(self.blocks, self.limits, self.cost)
        self.memory = FakePages(pages, host_pages)
        self.device: Callable[[StepLoad], float] = seconds_of
        self.noise: Callable[[], float] = lambda: 1.0
        self.now = 100.0
        self.jobs: dict[Row, Job] = {}
        self.resting: list[Row] = []
        """Conversations that no request uses, kept as long as there is room."""
        self.done: list[Job] = []
        self.expired: list[Job] = []
        self.refused: list[Job] = []
        self.preempted: list[Row] = []
        self.computed = 0
        """Tokens that went through the model."""
        self.stretched: list[float] = []
        """What each step with prompts took, by what it would have taken without them."""
        self.idle = 0
        self.turn: int | None = None
        """The class that went first in the last step."""

    def add(self, row: Row, wanted: int = 1) -> Job:
        self.jobs[row] = job = Job(row, len(row.tokens), wanted)
        self.scheduler.add(row)
        return job

    def take(self, row: Row, keep: bool = False) -> Job:
        """End a row."""
        self.scheduler.remove(row, keep)
        if keep:
            self.resting.append(row)
        return self.jobs.pop(row)

    def step(self, fails: bool = False) -> StepPlan:
        """One step; `fails`: the device breaks off after the transfers."""
        while self.resting and self.blocks.available < self.scheduler.wanted_pages():
            self.blocks.release(self.resting.pop(0))
        plan = self.scheduler.plan(self.now)
        self.check(plan)
        self.memory.move(plan.swap_out, plan.swap_in, plan.copies)
        self.preempted.extend(plan.preempted)
        self.expired.extend(self.take(row) for row in plan.expired)
        self.refused.extend(self.take(row) for row in plan.refused)
        if fails:
            return plan
        self.compute(plan)
        load = StepLoad.of(plan.rows)
        streams = StepLoad.of(step for step in plan.rows if self.jobs[step.row].streams)
        if streams.tokens and load != streams:
            self.stretched.append(self.device(load) / self.device(streams))
        accepted = {step.row.id: self.advance(step) for step in plan.rows}
        self.computed += plan.tokens
        seconds = self.device(load) * self.noise() if plan.rows else 0.0
        self.now += seconds
        self.scheduler.complete(plan, seconds, accepted)
        self.settle(plan)
        return plan

    def run(self, most: int = 2000) -> None:
        """Until nothing is left to do."""
        for _ in range(most):
            if not self.jobs:
                return
            self.step()
        raise AssertionError(f"{[job.row.id for job in self.jobs.values()]} did not end in {most} steps")

    # ---- the parts of a step

    def compute(self, plan: StepPlan) -> None:
        written: set[int] = set()
        for step in plan.rows:
            row, end = step.row, step.start + step.count
            pages = self.memory.write(row, step.start, [*row.tokens, *row.drafts][:end])
            assert not pages & written, "two rows write one page"
            written |= pages
        for step in plan.rows:
            tokens = [*step.row.tokens, *step.row.drafts][: step.start + step.count]
            check_cells(self.memory.device, step.row.pages, step.row.salt, tokens)

    def advance(self, step: RowStep) -> int:
        """Choose tokens; returns how many drafts were right."""
        job, end = self.jobs[step.row], step.start + step.count
        if step.row.all_logits:
            job.scored.extend(at for at in range(end - step.logits, end) if at < job.prompt)
        known = end - step.drafts
        if known < len(step.row.tokens):
            assert step.logits in (0, step.count if step.row.all_logits else 0)
            return 0
        assert step.logits >= 1 + step.drafts
        right = 0
        while right < step.drafts and step.row.drafts[right] == job.truth(known + right):
            right += 1
        step.row.tokens.extend(job.truth(at) for at in range(known, known + right + 1))
        step.row.drafts = []
        return right

    def settle(self, plan: StepPlan) -> None:
        for step in plan.rows:
            job = self.jobs[step.row]
            job.steps += 1
            assert job.row.computed <= len(job.row.tokens) - 1 or job.made == 0
            if job.made >= job.wanted:
                self.done.append(self.take(step.row))

    def check(self, plan: StepPlan) -> None:
        """What every plan promises."""
        rows = [step.row for step in plan.rows]
        assert len(set(rows)) == len(rows) <= self.limits.rows
        assert plan.tokens <= self.limits.tokens
        assert not set(rows) & {*plan.preempted, *plan.expired, *plan.refused}
        late = {row for row in self.jobs if row.deadline is not None and row.deadline <= self.now}
        assert set(plan.expired) == late
        large = {row for row in self.jobs if pages_for(len(row.tokens)) > self.blocks.pages}
        assert set(plan.refused) == large - late
        self.idle = 0 if rows or late or large or not self.jobs else self.idle + 1
        assert self.idle < 2, "there is work, and nothing is planned"
        streams = [step for step in plan.rows if self.jobs[step.row].streams]
        prompts = [step for step in plan.rows if not self.jobs[step.row].streams]
        assert [*streams, *prompts] == list(plan.rows), "rows that decode go first"
        for step in plan.rows:
            left = len(step.row.tokens) - step.row.computed
            assert step.start == step.row.computed
            assert 1 <= step.count - step.drafts <= min(left, self.limits.chunk)
            assert step.drafts <= (len(step.row.drafts) if step in streams else 0)
            assert len(step.row.pages) * PAGE_TOKENS >= step.start + step.count
        if len({row.rank for row in self.jobs}) > 1:
            self.check_classes(plan)
            return
        if prompts and streams:
            assert sum(step.count for step in prompts) <= self.limits.least or self.cost.seconds(
                StepLoad.of(plan.rows)
            ) <= self.limits.seconds
        if prompts:
            first = prompts[0]
            enough = min(self.limits.least, len(first.row.tokens) - first.start)
            assert first.count >= enough or first.row.all_logits
        settled = sum(self.jobs[step.row].made >= self.limits.settled for step in streams)
        if prompts and 2 * settled >= len(self.jobs):
            bound = min(self.limits.seconds, self.limits.stretch * self.cost.seconds(StepLoad.of(streams)))
            least = sum(step.count for step in prompts) <= self.limits.least
            assert least or self.cost.seconds(StepLoad.of(plan.rows)) <= bound


    def check_classes(self, plan: StepPlan) -> None:
        """What holds where several classes have work."""
        assert plan.turn is None or self.turn is None, "a lower class went first twice in a row"
        self.turn = plan.turn
        best = min((step.row.rank for step in plan.rows), default=0)
        if plan.turn is not None or best != min(row.rank for row in self.jobs):
            return
        seconds = self.cost.seconds(StepLoad.of(step for step in plan.rows if step.row.rank == best))
        assert self.cost.seconds(StepLoad.of(plan.rows)) <= 1.001 * self.limits.stretch**2 * seconds
        lower = StepLoad.of(step for step in plan.rows if step.row.rank <= best + 1)
        assert self.cost.seconds(lower) <= 1.001 * self.limits.stretch * seconds, "lower classes hold a higher one up"


def prompt(tokens: int, first: int = 0) -> list[int]:
    return [first + at for at in range(tokens)]


def row(
    tokens: int, id: str = "", first: int | None = None, priority: int = 0, deadline: float | None = None, rank: int = 0
) -> Row:
    """A row whose prompt is like no other, unless `first` says so."""
    number = next(NUMBER)
    start = 10_000 * (number + 1) if first is None else first
    return Row(id or f"row {number}", prompt(tokens, start), priority=priority, deadline=deadline, rank=rank)


def planned(runner: FakeRunner) -> dict[str, int]:
    """The next step: ids and how many tokens."""
    return {step.row.id: step.count for step in runner.step().rows}
