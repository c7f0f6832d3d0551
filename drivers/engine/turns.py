"""Whose turn it is among requests that wait: pure, time is `time.monotonic` seconds, passed in.

Classes of work go strictly one before the other, at each step. So that the lower ones never stand still, each is owed a
part of the time while a higher one wants it (`Dues`), as in deficit round robin (Shreedhar, Varghese 1995).

In its class a request's place is the time at which it would have entered a queue without priorities. It never changes,
so that waiting is bounded: nobody is overtaken for ever.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from llmos.syscalls.errors import TimedOut

from ..contract import FailedEvent, Request

AGING = 30.0
"""Seconds: a level of priority counts for twice as many, a deadline that is nearer for the rest."""

CLASSES = ("interactive", "batch", "background")
"""The higher first."""

MINIMA: Mapping[str, float] = {"batch": 0.1, "background": 0.05}
"""Parts of the time that lower classes are owed where nobody has said it."""

MOST_OWED = 1.0
"""Seconds: what a class could not use for long it does not get all at once."""

MOST_HAD = 0.5
"""Seconds: so much of what a class got while no higher one wanted it counts, once one does."""

CALM = 10.0
"""Seconds after which a class that does not come any more is not expected."""

Place = tuple[int, float]


def rank(request: Request) -> int:
    """Of its class: 0 is the highest."""
    return CLASSES.index(request.work_class)


def place(request: Request, now: float) -> Place:
    """Where a request that enters now stands; lower is earlier."""
    due = math.inf if request.deadline is None else request.deadline
    return rank(request), min(now, due - AGING) - 2.0 * AGING * request.priority


def late(request: Request, now: float) -> FailedEvent | None:
    """The end of a request whose deadline has passed."""
    if request.deadline is None or request.deadline > now:
        return None
    return FailedEvent(request.id, TimedOut("the deadline passed before the answer was complete"))


class Dues:
    """What lower classes are owed of the time that a higher one wanted too, by rank.

    A class that is owed something has its turn, one step before all others; the step after is nobody's, so that no
    class stands behind a lower one for longer than a step. In the long run a class that always wants time gets its
    part, or every second step if a step's worth is less than that. It waits from one turn to the next no longer than
    what the last one took, divided by its part, and a step.
    """

    def __init__(self) -> None:
        self._minima: tuple[float, ...] = ()
        self._owed = [0.0] * len(CLASSES)
        self._last: int | None = None
        self.set(MINIMA)

    def set(self, minima: Mapping[str, float]) -> None:
        """The part of the time of each class, 0 to 1; a class that is not named has that of `MINIMA`."""
        given = {**MINIMA, **minima}
        self._minima = tuple(given.get(name, 0.0) if at else 0.0 for at, name in enumerate(CLASSES))

    def turn(self, present: Collection[int]) -> int | None:
        """The lower class that goes first in the next step, of those with work; None: they go in their order."""
        best = min(present, default=0)
        owed = [rank for rank in present if rank > best and self._owed[rank] > 0.0]
        last, self._last = self._last, None
        if last is None and owed:
            self._last = max(owed, key=lambda rank: (self._owed[rank], -rank))
        return self._last

    def spent(self, present: Collection[int], took: Mapping[int, float], turn: int | None) -> None:
        """A step that was the `turn` of a class has ended; so many seconds of it went to each class.

        `present`: those that wanted it. What a class gets beside the others in other steps than its turn is not held
        against it.
        """
        total, best = sum(took.values()), min(present, default=0)
        for rank in range(len(CLASSES)):
            part = self._minima[rank] * total
            if rank not in present or rank <= best:
                had = took.get(rank, 0.0) if self._minima[rank] else 0.0
                self._owed[rank] = max(-MOST_HAD, min(0.0, self._owed[rank] + part) - had)
                continue
            more = part - took.get(rank, 0.0)
            self._owed[rank] = min(MOST_OWED, self._owed[rank] + (more if rank == turn else max(0.0, more)))


class Guests:
    """How long the steps are in which higher classes begin: what a class alone should keep its steps near to.

    A request waits for the step under way when it comes. So as long as requests of a class come, steps of lower classes
    alone take no longer than one in which such a request begins; when none has come for `CALM` seconds, they take what
    gives most.
    """

    def __init__(self) -> None:
        self._usual = [0.0] * len(CLASSES)
        """Seconds."""
        self._seen = [-math.inf] * len(CLASSES)

    def came(self, present: Collection[int], now: float) -> None:
        """These classes have requests."""
        for rank in present:
            self._seen[rank] = now

    def began(self, rank: int, seconds: float) -> None:
        """A step reads prompts of a class, which takes so long without lower ones."""
        known = self._usual[rank]
        self._usual[rank] = known + 0.2 * (seconds - known) if known else seconds

    def bound(self, rank: int, now: float) -> float:
        """Seconds that a step of this class should take at most; infinite where no higher class is expected."""
        expected = (its for its, seen in zip(self._usual[:rank], self._seen, strict=False) if now - seen <= CALM)
        return min((each for each in expected if each), default=math.inf)


class Classes:
    """Which class has the next step, where a step is of one class alone."""

    def __init__(self) -> None:
        self._dues = Dues()
        self._turn: int | None = None
        self._asked = False

    def set(self, minima: Mapping[str, float]) -> None:
        """As of `Dues`."""
        self._dues.set(minima)

    def next(self, present: Collection[int]) -> int:
        """The class of the next step, of those with work; as often as it is asked, until that is over."""
        if not self._asked:
            self._turn, self._asked = self._dues.turn(present), True
        return self._turn if self._turn in present and self._turn is not None else min(present)

    def spent(self, present: Collection[int], rank: int, seconds: float) -> None:
        """A step of a class is over; `present`: the classes that wanted it."""
        self._dues.spent(present, {rank: seconds}, self._turn if self._turn == rank else None)
        self._asked = False
