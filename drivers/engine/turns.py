"""Whose turn it is among requests that wait for one model: pure, time is `time.monotonic` seconds, passed in.

A request's place is the time at which it would have entered a queue without priorities. It never changes, so that
waiting is bounded: nobody is overtaken for ever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from llmos.syscalls.errors import TimedOut

from ..contract import FailedEvent, Request

AGING = 30.0
"""Seconds: a level of priority counts for twice as many, a deadline that is nearer for the rest."""

CLASSES: Mapping[str, int] = {"interactive": 8, "batch": 4, "background": 0}
"""Levels of priority that a class of work is worth."""


def place(request: Request, now: float) -> float:
    """Where a request that enters now stands; lower is earlier."""
    due = math.inf if request.deadline is None else request.deadline
    return min(now, due - AGING) - 2.0 * AGING * (CLASSES[request.work_class] + request.priority)


def late(request: Request, now: float) -> FailedEvent | None:
    """The end of a request whose deadline has passed."""
    if request.deadline is None or request.deadline > now:
        return None
    return FailedEvent(request.id, TimedOut("the deadline passed before the answer was complete"))
