"""Guessing with a draft model: a smaller one, on pages of its own, goes ahead of the model that it guesses for.

Its rows follow the answers: what was guessed right is computed already, the rest is taken back. It only proposes;
`sampling.speculative.verify` decides, so nothing that happens here can change an answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .blocks import BlockManager
from .paged import PagedModel
from .sampling.chooser import Chooser
from .sampling.sample import Best
from .sampling.speculative import draft
from .steps import Row, RowStep, StepPlan


@dataclass(frozen=True)
class Ask:
    """`tokens` of the answer `id` so far, prompt first; what follows is to be guessed, `wanted` tokens of it."""

    id: str
    tokens: Sequence[int]
    chooser: Chooser
    wanted: int
    salt: bytes = b""


@dataclass(eq=False)
class Guessed:
    """Guesses for one answer, and float32 `[k, V]` the distributions they were drawn from; none of a greedy answer."""

    tokens: list[int] = field(default_factory=list)
    drawn_from: list[Tensor] = field(default_factory=list)

    @property
    def probabilities(self) -> Tensor | None:
        return torch.stack(self.drawn_from) if self.drawn_from else None


@dataclass(eq=False)
class Follower:
    """The draft model's row of an answer: its first `known` tokens are the answer's, those after were guessed."""

    row: Row
    known: int = 0


class Drafter:
    """A draft model for the answers of one model. `seconds`: how long the last guesses took."""

    def __init__(
        self, model: PagedModel, blocks: BlockManager, context: int, vocabulary: int, chunk: int,
        weights: Sequence[Tensor] = (),
    ) -> None:  # fmt: skip
        """It knows `vocabulary` tokens and can read `context` of them, of those that it missed `chunk` at a time.
        `weights`: the model's, which rest with those of the other one."""
        self.weights = weights
        self._model, self._blocks = model, blocks
        self._context, self._vocabulary, self._chunk = context, vocabulary, chunk
        self._followers: dict[str, Follower] = {}
        self.seconds = 0.0

    @property
    def bytes(self) -> int:
        """Bytes of its pages."""
        return self._model.pool.bytes

    def guess(self, asks: Sequence[Ask], size: int) -> list[Guessed]:
        """What may follow each, as tokens below `size`, the width of the model's logits.

        Nothing while the draft model still reads what was there before, has no pages left, or has too short a context.
        """
        started = time.perf_counter()
        made = [Guessed() for _ in asks]
        rows = {at: row for at, ask in enumerate(asks) if (row := self._follow(ask)) is not None}
        steps = self._reading(rows)
        for ahead in range(max((ask.wanted for ask in asks), default=0)):
            if not steps:
                break
            logits = self._run(list(steps.values()))
            ready = [at for at, step in steps.items() if step.logits]
            steps = {}
            for at in self._draw(asks, ready, logits, ahead, size, made):
                if ahead + 1 < asks[at].wanted:
                    rows[at].tokens.append(made[at].tokens[-1])
                    steps[at] = RowStep(rows[at], rows[at].computed, 1, 1)
        self.seconds = time.perf_counter() - started
        return made

    def forget(self, id: str) -> None:
        """An answer has ended."""
        follower = self._followers.pop(id, None)
        if follower is not None:
            self._blocks.release(follower.row)

    @property
    def pages(self) -> Tensor:
        """The tensor that they are."""
        return self._model.pool.tensor

    def let_go(self) -> None:
        """Forget all that pages hold, when there are no answers."""
        self._blocks.forget_all()

    def release(self) -> None:
        """Take the pages away from the model."""
        self._followers.clear()
        self._model.release()

    def _reading(self, rows: Mapping[int, Row]) -> dict[int, RowStep]:
        """The step that reads what came since the last guesses; those that missed least go first."""
        steps: dict[int, RowStep] = {}
        left = self._chunk
        for at, row in sorted(rows.items(), key=lambda each: len(each[1].tokens) - each[1].computed):
            missed = len(row.tokens) - row.computed
            count = min(missed, left)
            if count:
                left -= count
                steps[at] = RowStep(row, row.computed, count, int(count == missed))
        return steps

    def _follow(self, ask: Ask) -> Row | None:
        """The answer's row with pages for all that is to be computed; None when it cannot have them."""
        follower = self._followers.setdefault(ask.id, Follower(Row(ask.id, [], ask.salt)))
        known = all(token < self._vocabulary for token in ask.tokens[follower.known :])
        if not known or len(ask.tokens) + ask.wanted - 1 > self._context:
            self.forget(ask.id)
            return None
        row, right = follower.row, follower.known
        end = min(len(row.tokens), len(ask.tokens))
        while right < end and row.tokens[right] == ask.tokens[right]:
            right += 1
        self._blocks.truncate(row, min(right, len(ask.tokens) - 1))
        row.tokens[right:] = ask.tokens[right:]
        follower.known = len(ask.tokens)
        if not row.pages:
            self._blocks.attach(row)
        if not self._blocks.grow(row, len(row.tokens) - row.computed + ask.wanted - 1):
            self._blocks.release(row)
            return None
        return row

    def _run(self, steps: Sequence[RowStep]) -> Tensor:
        moved = self._blocks.take_transfers()
        logits = self._model.run(StepPlan(steps, moved.swap_out, moved.swap_in, moved.copies))
        for step in steps:
            step.row.computed = step.start + step.count
            if step.row.computed <= self._followers[step.row.id].known:
                self._blocks.publish(step.row)
        return logits

    def _draw(
        self, asks: Sequence[Ask], ready: Sequence[int], logits: Tensor, ahead: int, size: int, made: list[Guessed]
    ) -> list[int]:
        """Guess one token of each that is ready, which has a row of logits; those that can go on."""
        if not ready:
            return []
        best = Best(logits[:, :size])
        row_of = {at: row for row, at in enumerate(ready) if math.isfinite(best.values[row])}
        drawn = [at for at in row_of if asks[at].chooser.drawn]
        for at in row_of.keys() - drawn:
            made[at].tokens.append(best.tokens[row_of[at]])
        if drawn:
            rows = logits[[row_of[at] for at in drawn]]
            tokens, probabilities = draft([asks[at].chooser for at in drawn], rows, ahead, size)
            for at, token, one in zip(drawn, tokens, probabilities, strict=True):
                made[at].tokens.append(token)
                made[at].drawn_from.append(one)
        return list(row_of)
