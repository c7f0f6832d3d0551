"""How long a step will take: a guess from operations and bytes at first, then learned from every step that was run.

The shape is that of the roofline model (Williams, Waterman, Patterson 2009): reading the weights and computing on them
overlap, so the larger of the two counts; attention and logits come on top. The coefficients are followed by a Kalman
filter (1960) on their logarithms, whose memory of how sure it is of what keeps the steps of one kind from spoiling what
steps of another have taught. An error far out of the usual counts as one at the edge of it, so that a pause of the
machine is not believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .steps import PAGE_TOKENS, RowStep

SHARPNESS = 3.0
"""How suddenly a step goes from bound by memory to bound by arithmetic: the exponent of the norm of the two."""

COEFFICIENTS = 5
GUESS_VARIANCE = 1.0
"""Of the logarithm of a guessed coefficient: it may well be wrong by a factor of three."""

DRIFT = (2e-5, 2e-5, 2e-5, 2e-5, 2e-5, 1e-4)
"""By how much the variance of each grows with a step; the last is of the machine's speed as a whole."""

USUAL_ERROR = 0.05
FAR_OUT = 2.5
"""Standard deviations."""

SETTLED = 16
"""After so many steps, what the coefficients cannot explain is laid to the number of tokens."""

BEND_RATE, MOST_BEND = 0.1, math.log(2.0)
OCTAVES = 20


@dataclass(frozen=True, slots=True)
class StepLoad:
    """What a step has to do.

    `tokens` go through the model; `keys` are read, each by one row; `pairs` of a query and a key are attended;
    `logits` rows are computed.
    """

    tokens: int = 0
    keys: int = 0
    pairs: int = 0
    logits: int = 0

    def plus(self, start: int, count: int, logits: int) -> StepLoad:
        """With `count` more tokens of a row from `start` on."""
        end = start + count
        pairs = count * start + count * (count + 1) // 2
        return StepLoad(self.tokens + count, self.keys + end, self.pairs + pairs, self.logits + logits)

    @staticmethod
    def of(rows: Iterable[RowStep]) -> StepLoad:
        """That of a plan."""
        load = StepLoad()
        for step in rows:
            load = load.plus(step.start, step.count, step.logits)
        return load


@dataclass(frozen=True)
class Work:
    """What a model takes, counted: bytes of weights read in each step, floating point operations of a token without
    attention, bytes of keys and values of a token in all layers."""

    weight_bytes: float
    token_flops: float
    key_bytes: float


@dataclass(frozen=True)
class Speed:
    """A guess of what the device does in a second: operations, bytes of its memory read, bytes to or from the host."""

    flops: float = 100e9
    memory_bytes: float = 20e9
    host_bytes: float = 5e9


class StepCost:
    """Seconds of a step."""

    def __init__(self, work: Work, speed: Speed | None = None) -> None:
        guess = speed or Speed()
        self._page_swap = PAGE_TOKENS * work.key_bytes / guess.host_bytes
        token = work.token_flops / guess.flops
        key, pair = work.key_bytes / guess.memory_bytes, 2.0 * work.key_bytes / guess.flops
        self._learned = [work.weight_bytes / guess.memory_bytes, token, key, pair, 0.1 * token, 1.0]
        """Seconds of the weights, a token, a key, a pair and a row of logits; and the factor of them all."""
        size = len(self._learned)
        self._covariance = [[0.0] * size for _ in range(size)]
        for at in range(COEFFICIENTS):
            self._covariance[at][at] = GUESS_VARIANCE
        self._bends = [0.0] * OCTAVES
        """Logarithms of what steps of 1, 2, 4, ... tokens take beyond the model."""
        self._error = 1.0
        """The usual size of an error."""
        self._steps = 0

    def seconds(self, load: StepLoad) -> float:
        """What a step will take; nothing takes no time."""
        if not load.tokens:
            return 0.0
        return sum(self._parts(load)) * self._learned[-1] * math.exp(self._bend(load.tokens))

    def observe(self, load: StepLoad, seconds: float) -> None:
        """A step was run and took so long."""
        if not load.tokens or seconds <= 0.0:
            return
        self._steps += 1
        parts = self._parts(load)
        total = sum(parts)
        slope = [*(part / total for part in parts), 1.0]
        spread = [sum(each * by for each, by in zip(row, slope, strict=True)) for row in self._covariance]
        known = sum(each * by for each, by in zip(spread, slope, strict=True))
        variance = known + (USUAL_ERROR + 1.0 / self._steps) ** 2
        edge = FAR_OUT * math.sqrt(known + max(USUAL_ERROR, self._error) ** 2)
        seen = math.log(seconds / self.seconds(load))
        error = max(-edge, min(edge, seen))
        for at, row in enumerate(self._covariance):
            gain = spread[at] / variance
            self._learned[at] *= math.exp(gain * error)
            for other, each in enumerate(spread):
                row[other] -= gain * each
            row[at] = min(row[at] + DRIFT[at], GUESS_VARIANCE)
        self._error += 0.1 * (min(abs(seen), 2.0 * edge) - self._error)
        rest = error * (1.0 - known / variance) if self._steps > SETTLED else 0.0
        for octave, part in self._octaves(load.tokens):
            bent = self._bends[octave] + BEND_RATE * rest * part
            self._bends[octave] = max(-MOST_BEND, min(MOST_BEND, bent))

    def fitting(self, load: StepLoad, start: int, most: int, seconds: float, every: bool = False) -> int:
        """How many tokens of a row from `start` on may join a load so that it takes no more than `seconds`.

        Up to `most`; `every`: the logits of each of them are wanted.
        """
        if seconds == math.inf:
            return most
        few, many = 0, most + 1
        while many - few > 1:
            count = (few + many) // 2
            if self.seconds(load.plus(start, count, count if every else 1)) <= seconds:
                few = count
            else:
                many = count
        return few

    def swap_seconds(self, pages: int) -> float:
        """To move so many pages to host memory, or back."""
        return pages * self._page_swap

    def _parts(self, load: StepLoad) -> tuple[float, float, float, float, float]:
        """Seconds for weights, tokens, keys, pairs and logits. The first two overlap: together they are their norm."""
        weights, token, key, pair, logit, _ = self._learned
        read, computed = weights, token * load.tokens
        larger = max(read, computed)
        powers = (read / larger) ** SHARPNESS, (computed / larger) ** SHARPNESS
        scale = larger * (powers[0] + powers[1]) ** (1.0 / SHARPNESS - 1.0)
        return (
            scale * powers[0], scale * powers[1],
            key * load.keys, pair * load.pairs, logit * load.logits,
        )  # fmt: skip

    def _bend(self, tokens: int) -> float:
        return sum(self._bends[octave] * part for octave, part in self._octaves(tokens))

    @staticmethod
    def _octaves(tokens: int) -> tuple[tuple[int, float], tuple[int, float]]:
        """The two powers of two beside a number of tokens, and how near it is to each."""
        place = min(math.log2(tokens), OCTAVES - 2)
        below = int(place)
        return (below, 1.0 - (place - below)), (below + 1, place - below)
