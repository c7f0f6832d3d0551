"""Refusing early: how long a request would wait, from what is ahead of it and how long such requests took.

A request that could not be answered in its time only takes time from others, so it is turned away when it arrives, with
a hint of when it pays to come again; one that has become hopeless while it waited is not started. Nothing is refused
on a guess: not before enough requests were measured, and never what can start at once. Pure; times are nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmos.syscalls.types import Number

MEASURED = 8
"""So many requests of a lane must have ended before its times count."""
NEWEST = 32
"""The newest of so many requests has this part in the mean."""
_SHORTEST_MS, _LONGEST_MS = 100, 60_000


class Pace:
    """How long the requests of a lane run, by work class: a moving mean, and how far single ones are from it."""

    __slots__ = ("_again_at", "_mean", "_off", "_seen", "ended", "quick_ns")

    def __init__(self) -> None:
        self._mean = [0, 0, 0]
        self._off = [0, 0, 0]
        """Mean absolute deviation."""
        self._seen = [0, 0, 0]
        self._again_at = 0
        """When the next one that is turned away should come again."""
        self.ended = 0
        self.quick_ns = 0
        """About the shortest time of late: it follows shorter ones at once and longer ones slowly."""

    def measured(self, work_class: int, took_ns: int) -> None:
        """A request of that class has ended after so long."""
        seen = self._seen[work_class] = min(self._seen[work_class] + 1, NEWEST)
        off = took_ns - self._mean[work_class]
        self._mean[work_class] += off // seen
        if seen > 1:
            self._off[work_class] += (abs(off) - self._off[work_class]) // seen
        self.quick_ns = min(took_ns, self.quick_ns + self.quick_ns // 16 + 1) if self.ended else took_ns
        self.ended += 1

    def service_ns(self, work_class: int) -> int:
        """How long a request of that class runs, or where none was measured, one of a neighbouring class."""
        return self._mean[work_class] or max(self._mean)

    def least_ns(self, work_class: int) -> int:
        """How long a request of that class runs at least, as nearly all did: the shortest of late, or the mean less the
        mean deviation where that is more."""
        return max(self.quick_ns, self.service_ns(work_class) - self._off[work_class])

    def most_ns(self, work_class: int, wait_ns: int) -> int:
        """How long it takes until a request that waits so long has ended, with a margin for what varies."""
        return wait_ns + wait_ns // 8 + self.service_ns(work_class) + 2 * self._off[work_class]

    def wait_ns(self, ahead: Sequence[int], slots: int) -> int:
        """How long it takes until so many requests of each class have started and one more slot is free."""
        work = sum(count * self.service_ns(work_class) for work_class, count in enumerate(ahead) if count)
        return (work + max(self._mean)) // max(slots, 1)

    def come_again_ms(self, now: int, soonest_ns: int, slots: int) -> int:
        """When one that is turned away should come again: one after the other, as fast as slots become free, so that
        the many who were turned away do not come back all at once."""
        at = max(self._again_at, now + soonest_ns)
        self._again_at = min(at + max(self._mean) // max(slots, 1), now + _LONGEST_MS * 1_000_000)
        return bounded_ms(at - now)

    def retry_after_ms(self, slots: int) -> int:
        """A guess of when a slot is free: 100 ms to a minute."""
        return bounded_ms(self.wait_ns((0, 0, 0), slots))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is turned away when it arrives."""

    rule: str
    wait_ns: int
    """What it would wait."""
    needed_ns: int
    """Until it starts or has ended, as the rule asks."""
    allowed_ns: int

    @property
    def short_ns(self) -> int:
        """By how much the queue is too long."""
        return self.needed_ns - self.allowed_ns

    @property
    def numbers(self) -> dict[str, Number]:
        return {
            "predicted_wait_s": self.wait_ns / 1e9,
            "needed_s": self.needed_ns / 1e9,
            "allowed_s": self.allowed_ns / 1e9,
        }

    @property
    def text(self) -> str:
        """What it would have to wait, and what it may."""
        wait, allowed = f"it would wait about {self.wait_ns / 1e9:.1f} s", f"{self.allowed_ns / 1e9:.1f} s"
        if self.rule == QUEUE:
            return f"{wait}, and requests may wait {allowed}"
        return f"{wait} and could need {self.needed_ns / 1e9:.1f} s in all, and its deadline is in {allowed}"


QUEUE = "limits.queue_s"
DEADLINE = "deadline"


def refusal(pace: Pace, work_class: int, wait_ns: int, left_ns: int | None, queue_ns: int) -> Refusal | None:
    """Whether a request of that class with that predicted wait is turned away.

    `left_ns` is the time until its deadline, None without one; `queue_ns` is how long policy lets requests wait, 0 for
    any time.
    """
    if pace.ended < MEASURED:
        return None
    if left_ns is not None and (needed := pace.most_ns(work_class, wait_ns)) > left_ns:
        return Refusal(DEADLINE, wait_ns, needed, left_ns)
    if 0 < queue_ns < wait_ns:
        return Refusal(QUEUE, wait_ns, wait_ns, queue_ns)
    return None


def hopeless(pace: Pace, work_class: int, left_ns: int | None) -> bool:
    """Whether a request of that class whose turn has come would hardly end before its deadline.

    One that starts and is late has had device time for nothing, which those that wait could have used.
    """
    return left_ns is not None and pace.ended >= MEASURED and pace.least_ns(work_class) > left_ns


def bounded_ms(ns: int) -> int:
    """A hint in milliseconds, from 100 ms to a minute."""
    return min(max(-(-ns // 1_000_000), _SHORTEST_MS), _LONGEST_MS)
