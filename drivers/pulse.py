"""The sign of life of the work loop: what it does, and how long that may take before it counts as stuck.

The work loop itself beats, because a thread that only beats would go on while the work hangs. Inside one long step
nobody beats; the kernel then waits as long as the step was declared to take (MINIX calls this a free pass; here it has
a limit).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from llmos.syscalls.driver import Beat

INTERVAL_S = 1.0
_FRESH_S = 0.25


class Pulse:
    """Decides when to beat.

    Args:
        emit: sends a beat at once.
        clock: seconds.
    """

    def __init__(self, emit: Callable[[Beat], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.steps = 0
        self._emit = emit
        self._clock = clock
        self._seq = 0
        self._what = ""
        self._allowed = 0.0
        self._at = float("-inf")

    def declare(self, what: str, seconds: float) -> None:
        """Say what comes next and how long it may take.

        Says nothing when the last beat promised about the same a moment ago: small steps need not beat each.
        """
        promised = what == self._what and seconds <= self._allowed <= 1.5 * seconds
        if not (promised and self._fresh()):
            self._beat(what, seconds)

    def alive(self) -> None:
        """Renew what was declared last: the long work has come further."""
        if not self._fresh():
            self._beat(self._what, self._allowed)

    def until_due(self, seconds: float) -> float:
        """Seconds until an idle loop that may stay silent for `seconds` has to beat again."""
        return max(0.0, self._at + min(INTERVAL_S, seconds / 3) - self._clock())

    def _fresh(self) -> bool:
        return self._clock() - self._at < min(_FRESH_S, self._allowed / 12)

    def _beat(self, what: str, seconds: float) -> None:
        self._what, self._allowed, self._at = what, seconds, self._clock()
        self._emit(Beat(seq=self._seq, steps=self.steps, busy_with=what, may_take_s=seconds))
        self._seq += 1
