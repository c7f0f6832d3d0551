"""With how many tokens each row takes part in a step: pure.

In each class of work rows that decode go first, with one token and their drafts; then prompts, as far as time and
tokens go. A lower class joins only so far as it does not hold the higher ones up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from .costs import StepCost, StepLoad
from .places import Place, StepLimits
from .steps import RowStep


class Filling:
    """One step in the making. `guests`: seconds that a step of a class should take, as higher ones may come."""

    def __init__(self, limits: StepLimits, cost: StepCost, guests: Callable[[int], float]) -> None:
        self._limits, self._cost, self._guests = limits, cost, guests
        self._decoding: list[RowStep] = []
        self._prompts: list[RowStep] = []
        self._load = StepLoad()

    def fill(self, ready: Sequence[Place], present: Mapping[int, int], turn: int | None) -> list[RowStep]:
        """The parts of rows that have their pages, most urgent first. `present`: how many of each class are there,
        with or without pages; `turn`: the class that goes before the higher ones."""
        ceiling, absent = math.inf, False
        for rank in sorted(present, key=lambda rank: (rank != turn, rank)):
            mine = [place for place in ready if place.rank == rank]
            if rank == turn or (absent and ceiling == math.inf):
                rest = [place for place in ready if place.rank != rank]
                tokens = self._limits.tokens - sum(place.decodes for place in rest)
                self._be_brief(mine, min(self._limits.turn, self._guests(rank)), tokens)
            else:
                self._join(mine, min(present[rank], self._limits.rows), ceiling, self._guests(rank))
            if rank != turn and self._load.tokens:
                stretch = self._limits.beside if self._prompts else self._limits.stretch
                ceiling = min(ceiling, stretch * self._cost.seconds(self._load))
            absent = absent or not mine
        return [*self._decoding, *self._prompts]

    def _be_brief(self, mine: Sequence[Place], seconds: float, tokens: int) -> None:
        """Rows of a class for a short time, because a higher one is there: at least one, or the beginning of a
        prompt."""
        limits, decoding = self._limits, [place for place in mine if place.decodes]
        self._decode(decoding, max(1, self._fitting(decoding, seconds)), 0)
        prompts = [place for place in mine if not place.decodes]
        self._read(prompts, seconds, 0 if decoding else limits.least, tokens, limits.least)

    def _join(self, mine: Sequence[Place], present: int, ceiling: float, alone: float) -> None:
        """Rows of one class, of which so many are there, in a step that takes `ceiling` seconds at most with them;
        about `alone` seconds where no higher class is part of it."""
        limits, cost = self._limits, self._cost
        decoding = [place for place in mine if place.decodes]
        prompts = [place for place in mine if not place.decodes]
        if ceiling == math.inf:
            room = limits.tokens - self._load.tokens - len(decoding) - (limits.least if prompts else 0)
            self._decode(decoding, len(decoding), room)
        else:
            self._decode(decoding, self._fitting(decoding, ceiling), 0)
        settled = sum(len(place.row.tokens) - place.prompt >= limits.settled for place in decoding)
        stretch = limits.stretch if 2 * settled >= present else math.inf
        bound = min(stretch * cost.seconds(self._load), limits.seconds) if decoding else math.inf
        first = ceiling == math.inf
        if first:
            bound = min(bound, max(alone, limits.stretch * cost.seconds(self._load)))
        least, floor = (limits.least, 1) if first else (0, limits.least)
        self._read(prompts, min(bound, ceiling), least, limits.tokens, floor)

    def _fitting(self, decoding: Sequence[Place], seconds: float) -> int:
        """How many of these rows may decode in a step that takes no longer than this."""
        loads = [self._load]
        for place in decoding[: self._limits.tokens - self._load.tokens]:
            loads.append(loads[-1].plus(place.row.computed, 1, 1))
        few, many = 0, len(loads)
        while many - few > 1:
            count = (few + many) // 2
            if self._cost.seconds(loads[count]) <= seconds:
                few = count
            else:
                many = count
        return few

    def _decode(self, decoding: Sequence[Place], count: int, guesses: int) -> None:
        """The first of these rows, with drafts as far as tokens go."""
        for place in decoding[:count]:
            drafts = max(0, min(place.drafts, guesses))
            guesses -= drafts
            self._decoding.append(RowStep(place.row, place.row.computed, 1 + drafts, 1 + drafts, drafts))
            self._load = self._load.plus(place.row.computed, 1 + drafts, 1 + drafts)

    def _read(self, prompts: Sequence[Place], bound: float, least: int, tokens: int, floor: int = 1) -> None:
        """Prompts, in a step that takes no longer than `bound`; but `least` tokens of the first always go. Those of
        which fewer than `floor` would go wait."""
        limits = self._limits
        for at, place in enumerate(prompts):
            row, every = place.row, place.row.all_logits and place.row.computed >= place.scored
            most = min(place.left, limits.chunk, tokens - self._load.tokens)
            if place.row.all_logits and not every:
                most = min(most, place.scored - row.computed)  # computed again: nobody asks for these any more
            count = self._cost.fitting(self._load, row.computed, most, bound, every)
            if at == 0:
                count = max(count, min(most, least))
            if count < max(1, min(most, floor)):
                break
            self._prompts.append(RowStep(row, row.computed, count, count if every else int(count == place.left)))
            self._load = self._load.plus(row.computed, count, self._prompts[-1].logits)
