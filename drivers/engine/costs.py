"""How long a step will take: a guess from operations and bytes at first, then learned from every step that was run.

The shape is that of the roofline model (Williams, Waterman, Patterson 2009): reading the weights and computing on them
overlap, so the larger of the two counts; attention and logits come on top. Each coefficient is corrected in proportion
to its share of the predicted time (a normalised least-mean-squares filter on logarithms), by no more than a little for
each step, so that a pause of the machine does not count for much.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .steps import PAGE_TOKENS, RowStep

SHARPNESS = 3.0
"""How suddenly a step goes from bound by memory to bound by arithmetic: the exponent of the norm of the two."""

FIRST = 8
"""So many steps are learned from in large strides."""

FIRST_RATE, FIRST_CLIP = 0.5, 1.5
RATE, CLIP = 0.25, 0.25
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
        self._weights = work.weight_bytes / guess.memory_bytes
        self._token = work.token_flops / guess.flops
        self._key = work.key_bytes / guess.memory_bytes
        self._pair = 2.0 * work.key_bytes / guess.flops
        self._logit = 0.1 * self._token
        self._bends = [0.0] * OCTAVES
        """Logarithms of what steps of 1, 2, 4, ... tokens take beyond the model."""
        self._steps = 0

    def seconds(self, load: StepLoad) -> float:
        """What a step will take; nothing takes no time."""
        return sum(self._parts(load)) * math.exp(self._bend(load.tokens)) if load.tokens else 0.0

    def observe(self, load: StepLoad, seconds: float) -> None:
        """A step was run and took so long."""
        if not load.tokens or seconds <= 0.0:
            return
        self._steps += 1
        rate, clip = (FIRST_RATE, FIRST_CLIP) if self._steps <= FIRST else (RATE, CLIP)
        error = max(-clip, min(clip, math.log(seconds / self.seconds(load))))
        parts = self._parts(load)
        total = sum(parts)
        shares = [part / total for part in parts]
        stride = rate * error / sum(share * share for share in shares)
        factors = [math.exp(stride * share) for share in shares]
        self._weights *= factors[0]
        self._token *= factors[1]
        self._key *= factors[2]
        self._pair *= factors[3]
        self._logit *= factors[4]
        for octave, part in self._octaves(load.tokens):
            bent = self._bends[octave] + BEND_RATE * error * part
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
        read, computed = self._weights, self._token * load.tokens
        larger = max(read, computed)
        powers = (read / larger) ** SHARPNESS, (computed / larger) ** SHARPNESS
        scale = larger * (powers[0] + powers[1]) ** (1.0 / SHARPNESS - 1.0)
        return (
            scale * powers[0], scale * powers[1],
            self._key * load.keys, self._pair * load.pairs, self._logit * load.logits,
        )  # fmt: skip

    def _bend(self, tokens: int) -> float:
        return sum(self._bends[octave] * part for octave, part in self._octaves(tokens))

    @staticmethod
    def _octaves(tokens: int) -> tuple[tuple[int, float], tuple[int, float]]:
        """The two powers of two beside a number of tokens, and how near it is to each."""
        place = min(math.log2(tokens), OCTAVES - 2)
        below = int(place)
        return (below, 1.0 - (place - below)), (below + 1, place - below)
