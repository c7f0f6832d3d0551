"""Which rows take part in the next step of a paged model, and with how many tokens: first come, first served."""

from __future__ import annotations

from .blocks import BlockManager, pages_for
from .pace import Pace
from .steps import Row, RowStep, StepPlan


class StepScheduler:
    """Rows in the order they came; prompts go in parts of `prefill_tokens`, mixed with the rows that decode."""

    def __init__(self, blocks: BlockManager, prefill_tokens: int, pace: Pace) -> None:
        self._blocks = blocks
        self._prefill_tokens = prefill_tokens
        self._pace = pace
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """A row that has tokens to compute."""
        self._rows.append(row)

    def remove(self, row: Row, keep: bool = False) -> None:
        """A row has ended; its pages are released unless it is kept."""
        self._rows = [other for other in self._rows if other is not row]
        if not keep:
            self._blocks.release(row)

    def plan(self, now: float) -> StepPlan:
        """The next step."""
        steps: list[RowStep] = []
        budget = self._prefill_tokens
        for row in self._rows:
            if not row.pages and not row.all_logits:
                row.cached = self._blocks.attach(row)
            left = len(row.tokens) - row.computed
            count = min(left, budget)
            if count <= 0 or not self._blocks.grow(row, count):
                continue
            budget -= count if left > 1 else 0
            through = int(count == left)
            steps.append(RowStep(row, row.computed, count, count if row.all_logits else through))
        moved = self._blocks.take_transfers()
        return StepPlan(steps, moved.swap_out, moved.swap_in, moved.copies)

    def complete(self, plan: StepPlan, seconds: float) -> None:
        """A step was carried out and took so long."""
        for step in plan.rows:
            step.row.computed = step.start + step.count
            self._blocks.publish(step.row)
        self._pace.observe(plan.tokens, seconds)

    def step_seconds(self) -> float:
        """How long the next step will take, as predicted."""
        waiting = sum(len(row.tokens) - row.computed for row in self._rows)
        return self._pace.seconds(min(waiting, self._prefill_tokens)) if waiting else 0.0

    def wanted_pages(self) -> int:
        """How many pages the next step may need."""
        return pages_for(self._prefill_tokens) + len(self._rows)
