"""How often a model is going to be asked for, learned from who was asked for so far.

Four counts are kept of each model, which forget after 15, 100, 800 and 10 000 requests of all models. Each count alone
is a guess of who is asked for next; so is each blend of one that forgets soon with one that does not, and so is that
everybody is as likely. Which guess suits the traffic is learned while it runs: each has a weight, multiplied by the
likelihood that it gave to what was really asked for (Bayes; a little is shared again so that it can change its mind:
Herbster and Warmuth 1998, *Tracking the Best Expert*). Somebody who works with one model for a while makes what was
asked for lately count; steady traffic makes the long run count; a round over all models makes them equal.

Pure; the clock is the number of requests, so a quiet night forgets nothing. A request costs a few microseconds.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from math import exp
from typing import Generic, TypeVar

SOON, LATE = (15.0, 100.0), (800.0, 10_000.0)
"""Requests after which a count has forgotten all but 1/e."""
MEMORIES = (*SOON, *LATE)
PARTS = (0.25, 0.5, 0.75, 0.95)
"""How much of a blend is the guess that forgets soon."""
SHARED = 0.001
"""How much weight is shared among all guesses at each request."""
EQUAL = 1e-4
"""The weight at first of the guess that all models are as likely."""
AHEAD = 200.0
"""Requests that expected uses are counted over: about as long as a model stays."""
LARGEST = 1e100

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Guess:
    """A blend: `part` of the count at place `soon`, the rest of that at place `late`."""

    late: int
    soon: int = 0
    part: float = 0.0


GUESSES = (
    *(_Guess(late) for late in range(len(SOON), len(MEMORIES))),
    *(
        _Guess(late, soon, part)
        for late in range(len(SOON), len(MEMORIES))
        for soon in range(len(SOON))
        for part in PARTS
    ),
)
_REACH = [memory * (1 - exp(-AHEAD / memory)) for memory in MEMORIES]
_GROWTH = [exp(1 / memory) for memory in MEMORIES]


@dataclass(slots=True)
class Expectation(Generic[K]):
    """Expected uses of models."""

    _counts: dict[K, list[float]] = field(default_factory=dict)
    """Of each model by memory, in units that grow with each request instead of the counts being made smaller."""
    _totals: list[float] = field(default_factory=lambda: [0.0] * len(MEMORIES))
    _unit: list[float] = field(default_factory=lambda: [1.0] * len(MEMORIES))
    _weights: list[float] = field(default_factory=lambda: [(1 - EQUAL) / len(GUESSES)] * len(GUESSES))
    _equal: float = EQUAL

    def asked(self, model: K) -> None:
        """Learn from a request for a model."""
        self._learn(self._chances(model))
        counts = self._counts.setdefault(model, [0.0] * len(MEMORIES))
        for place, growth in enumerate(_GROWTH):
            unit = self._unit[place] = self._unit[place] * growth
            counts[place] += unit
            self._totals[place] += unit
            if unit > LARGEST:
                self._rescale(place)

    def uses(self, model: K) -> float:
        """Expected uses in the next `AHEAD` requests of all models."""
        chances, blend = self._chances(model), self.blend()
        found = sum(part * reach * chance for part, reach, chance in zip(blend, _REACH, chances, strict=False))
        return found + self._equal * AHEAD * chances[-1]

    def blend(self) -> list[float]:
        """How much each memory counts at present."""
        parts = [0.0] * len(MEMORIES)
        for weight, guess in zip(self._weights, GUESSES, strict=True):
            parts[guess.soon] += weight * guess.part
            parts[guess.late] += weight * (1 - guess.part)
        return parts

    def forget(self, model: K) -> None:
        """As if it had never been asked for; nothing happens when it is unknown."""
        for place, count in enumerate(self._counts.pop(model, ())):
            self._totals[place] -= count

    def _chances(self, model: K) -> list[float]:
        """Of being the next, by each memory, and if all were as likely; one more model may always turn up."""
        even = 1 / (len(self._counts) + 1)
        counts = self._counts.get(model)
        if counts is None:
            return [*(unit * even / (total + unit) for unit, total in zip(self._unit, self._totals, strict=True)), even]
        rows = zip(counts, self._unit, self._totals, strict=True)
        return [*((count + unit * even) / (total + unit) for count, unit, total in rows), even]

    def _learn(self, chances: list[float]) -> None:
        likely = [
            weight * (guess.part * chances[guess.soon] + (1 - guess.part) * chances[guess.late])
            for weight, guess in zip(self._weights, GUESSES, strict=True)
        ]
        equal = self._equal * chances[-1]
        whole = (1 - SHARED) / (sum(likely) + equal)
        shared = SHARED * (1 - EQUAL) / len(GUESSES)
        self._weights = [each * whole + shared for each in likely]
        self._equal = equal * whole + SHARED * EQUAL

    def _rescale(self, place: int) -> None:
        unit = self._unit[place]
        for counts in self._counts.values():
            counts[place] /= unit
        self._totals[place] /= unit
        self._unit[place] = 1.0
