"""What a job under way is asked and tells: checkpoints, events, and figures at the end."""

from __future__ import annotations

import threading
from collections import deque

from ..contract import TuneEvent
from .training import Report


class Telling:
    """Events are made on the work thread, and taken there; a checkpoint is asked for on any."""

    def __init__(self) -> None:
        self._events: deque[TuneEvent] = deque()
        self._asked = threading.Event()

    def checkpoint(self) -> None:
        """Have one written as soon as that can be."""
        self._asked.set()

    def told(self) -> list[TuneEvent]:
        """What has happened since it was asked last."""
        events = list(self._events)
        self._events.clear()
        return events

    def _taken(self) -> bool:
        """Whether a checkpoint was asked for since it was asked last."""
        asked = self._asked.is_set()
        self._asked.clear()
        return asked


def figures_of(report: Report) -> dict[str, float]:
    """Held-out figures after and before, by the names that conditions and records know them by."""
    after = {f"eval_{name}": value for name, value in report.after.items()}
    return after | {f"eval_{name}_before": value for name, value in report.before.items()}
