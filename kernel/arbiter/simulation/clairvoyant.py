"""How few seconds of loads a trace can cost, whoever decides: a bound for those who know the future.

**The bound.** Take the requests in the order of their arrival. Between a request for a model and the next one for
it (an *interval*) either the model stays in memory all the time and the next request costs nothing, or it has to be
loaded again and costs its load. Every model that stays through the moment of a request takes its bytes there, beside
the model that was asked for, which has to be there too; together they fit the device. To choose the intervals that save
most under these conditions is an integer program. Two steps make a bound of it that can be computed and that nobody can
beat:

1. Models may stay in part (its linear relaxation; Berger, Beckmann and Harchol-Balter 2018, *Practical Bounds on
   Optimal Caching with Variable Object Sizes*, here with costs). That allows more, so it saves at least as much.
2. Bytes have a price at each moment, any prices that are not negative. Then no choice saves more than
   `sum(price * room) + sum(max(0, load - bytes * prices in between))`: weak duality. Any prices give a bound; the
   search for good ones (subgradient steps) only makes it tighter, and stopping early never makes it wrong.

With one price for all moments this is the bound called PFOO-L in that paper, which is where the search begins.

Requests that had to wait for room start later than they arrive. With `late_s` as the longest of those waits an interval
needs its bytes only from that much after its first request, and the model asked for is not counted: the bound gets
weaker and remains one.

**The other side.** `Clairvoyant` is a policy that can be carried out by somebody who knows the future: who leaves is
whoever costs least for each byte and second until its next use (Belady's rule, by cost and size). The truth about the
best possible lies between the two. `Informed` is told how often each model will be asked for, but not when: what a
policy that learns could know at best where requests are independent of each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import NamedTuple

from ..residence import SECOND, Candidate
from ..value import needed_of
from .traces import Trace

STEPS = 150
PATIENCE, SLOWER = 10, 0.7
"""After so many steps without a better bound steps become so much shorter."""
KEPT = 0.85
"""How much of a direction remains in the next one."""


class Interval(NamedTuple):
    """Between two requests for one model: the slots, in the order of arrival, from `first` up to before `last`."""

    first: int
    last: int
    bytes: int
    load_s: float


@dataclass(frozen=True, slots=True)
class Problem:
    """Which intervals may stay in memory: bytes of all that are there at a slot are at most its room."""

    intervals: tuple[Interval, ...]
    room: tuple[int, ...]
    loads_s: float
    """Of all requests, if nothing ever stayed."""


def bound(trace: Trace, late_s: float = 0.0, steps: int = STEPS) -> float:
    """Seconds of loads that no policy can go below on this trace."""
    problem = problem_of(trace, late_s)
    return problem.loads_s - most_saved(problem, steps)


def problem_of(trace: Trace, late_s: float = 0.0) -> Problem:
    """The choice of intervals of a trace."""
    asked = [request.model for request in trace.requests]
    before: dict[int, int] = {}
    room = tuple(trace.capacity - (0 if late_s else trace.models[model].bytes) for model in asked)
    intervals = []
    for slot, model in enumerate(asked):
        if model in before:
            first, size = _from(trace, before[model], slot, late_s), trace.models[model].bytes
            if size <= min(room[first:slot], default=size):  # else one in between needs too much for it to stay
                intervals.append(Interval(first, slot, size, trace.models[model].load_s))
        before[model] = slot
    return Problem(tuple(intervals), room, sum(trace.models[model].load_s for model in asked))


def _from(trace: Trace, start: int, end: int, late_s: float) -> int:
    """The first slot after `late_s` seconds from the request at slot `start`."""
    moment, slot = trace.requests[start].at + late_s, start + 1
    while slot < end and trace.requests[slot].at < moment:
        slot += 1
    return slot


def most_saved(problem: Problem, steps: int = STEPS) -> float:
    """An upper bound of the seconds that any choice of intervals saves.

    Prices follow the room that is short, with the step of Polyak (1969) towards what a choice that can be carried out
    saves, in directions that keep some of those before (Camerini, Fratta and Maffioli 1975).
    """
    reached, prices = _greedily_saved(problem), [_one_price(problem)] * len(problem.room)
    direction = [0.0] * len(prices)
    best, pace, idle = inf, 1.0, 0
    for _ in range(steps):
        saved, slack = _priced(problem, prices)
        idle = 0 if saved < best else idle + 1
        best = min(best, saved)
        if idle == PATIENCE:
            pace, idle = pace * SLOWER, 0
        rows = zip(slack, prices, direction, strict=True)
        direction = [(over if price > 0 or over < 0 else 0.0) + KEPT * before for over, price, before in rows]
        length = sum(each * each for each in direction)
        if not length:
            break
        step = pace * (saved - reached) / length
        prices = [max(0.0, price - step * each) for price, each in zip(prices, direction, strict=True)]
    return best


def _greedily_saved(problem: Problem) -> float:
    """What a choice saves that fits: the interval worth most for its bytes and slots first."""
    room, saved = list(problem.room), 0.0
    for each in sorted(problem.intervals, key=lambda each: each.bytes * (each.last - each.first) / each.load_s):
        slots = range(each.first, each.last)
        if all(room[slot] >= each.bytes for slot in slots):
            saved += each.load_s
            for slot in slots:
                room[slot] -= each.bytes
    return saved


def _one_price(problem: Problem) -> float:
    """The best of all prices that are the same at every slot: that of the last interval which the whole room holds."""
    spans = [(each.bytes * (each.last - each.first), each.load_s) for each in problem.intervals]
    room = sum(problem.room)
    for price, span in sorted(((load_s / span, span) for span, load_s in spans if span), reverse=True):
        room -= span
        if room <= 0:
            return price
    return 0.0


def _priced(problem: Problem, prices: Sequence[float]) -> tuple[float, list[float]]:
    """What is saved at most at these prices, and the room that is left at each slot, less than 0 where it is short."""
    until = [0.0, *accumulate(prices)]
    taken = [0.0] * (len(prices) + 1)
    saved = sum(price * room for price, room in zip(prices, problem.room, strict=True))
    for first, last, size, load_s in problem.intervals:
        gain = load_s - size * (until[last] - until[first])
        if gain > 0:
            saved += gain
            taken[first] += size
            taken[last] -= size
    held = accumulate(taken)
    return saved, [room - each for room, each in zip(problem.room, held, strict=False)]  # `taken` ends one later


class Clairvoyant:
    """Knows the trace it is replayed on: who is asked for again latest, for its cost and bytes, leaves first."""

    name = "clairvoyant"
    rule = "least reload seconds for each byte and second until the next use first"

    def __init__(self, trace: Trace) -> None:
        self._models = trace.models
        self._coming: dict[str, list[float]] = {}
        """Of each model the moments when it is asked for, the latest first."""
        for request in reversed(trace.requests):
            self._coming.setdefault(str(request.model), []).append(request.at)

    def surplus(self, view: Sequence[Candidate]) -> int:
        return 0

    def victims(self, view: Sequence[Candidate], needed: int, now: int) -> list[Candidate]:
        return needed_of(sorted(view, key=lambda each: (self._value(each, now / SECOND), each.model)), needed)

    def numbers(self, candidate: Candidate, now: int) -> dict[str, float]:
        return {}

    def _value(self, candidate: Candidate, now: float) -> float:
        coming = self._coming[candidate.model]
        while coming and coming[-1] <= now:
            coming.pop()
        return candidate.reload_s / candidate.bytes / (coming[-1] - now) if coming else 0.0


class Informed:
    """Knows how often each model is asked for in the whole trace, and nothing of when.

    Where requests are independent of each other nobody can learn more than that from the past.
    """

    name = "informed"
    rule = "least reload seconds times uses in the whole trace for a byte first"

    def __init__(self, trace: Trace) -> None:
        self._uses = Counter(str(request.model) for request in trace.requests)

    def surplus(self, view: Sequence[Candidate]) -> int:
        return 0

    def victims(self, view: Sequence[Candidate], needed: int, now: int) -> list[Candidate]:
        return needed_of(sorted(view, key=lambda each: (self._value(each), each.model)), needed)

    def numbers(self, candidate: Candidate, now: int) -> dict[str, float]:
        return {}

    def _value(self, candidate: Candidate) -> float:
        return self._uses[candidate.model] * candidate.reload_s / candidate.bytes
