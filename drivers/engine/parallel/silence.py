"""When a process that says nothing counts as stuck: not for being slow, but for doing nothing.

Time counts as it is seen: a watcher that was not run itself for a while, because the machine was suspended or had no
processor to spare, takes that for no silence of others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

PROCESSES = Path("/proc")
USER_TICKS, SYSTEM_TICKS = 11, 12
"""Fields of proc_pid_stat(5), counted from the one behind the program's name."""

LOOK_S = 2.0
"""What at most counts between two looks."""


class Silence:
    """Since a process was heard. `busy` tells the processor time it has used, None where that is not known."""

    def __init__(self, idle_s: float, hang_s: float, busy: Callable[[], float | None]) -> None:
        """Stuck after `idle_s` in which it computed nothing, or after `hang_s` in any case."""
        self.seconds = 0.0
        self._idle_s, self._hang_s, self._busy = idle_s, hang_s, busy
        self._idle = 0.0
        self._looked: float | None = None
        self._used: float | None = None

    def stuck(self, now: float) -> bool:
        """Look at it, at a time of the clock that only rises."""
        since = 0.0 if self._looked is None else min(LOOK_S, now - self._looked)
        self._looked = now
        self.seconds += since
        used = self._busy()
        self._idle = 0.0 if used is not None and self._used is not None and used > self._used else self._idle + since
        self._used = used
        return self._idle > self._idle_s or self.seconds > self._hang_s


def busy_seconds(pid: int, processes: Path = PROCESSES) -> float | None:
    """Processor time that all threads of a process have used; None where the system does not tell."""
    try:
        fields = (processes / str(pid) / "stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])
    except (OSError, IndexError, ValueError):
        return None
    return ticks / os.sysconf("SC_CLK_TCK")
