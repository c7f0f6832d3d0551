"""Steps that leave a part of the time to other processes of the same hardware: pure, time is seconds, passed in.

After a step that took `s` seconds the next one begins no sooner than `s / part` seconds after it began. What was not
used is not saved up, so that a device that had nothing to do begins at once and takes no more than its part after it.
"""

from __future__ import annotations


class Pacing:
    """The steps of one device."""

    def __init__(self) -> None:
        self._part = 1.0
        self._due = float("-inf")

    def set(self, part: float) -> None:
        """Of the time, above 0 and up to 1."""
        self._part = part
        if part == 1.0:
            self._due = float("-inf")

    def stepped(self, began: float, ended: float) -> None:
        """A step was carried out."""
        if self._part < 1.0:
            self._due = max(began, self._due) + (ended - began) / self._part

    def wait(self, now: float) -> float:
        """Seconds until the next step may begin; 0 when it may at once."""
        return max(0.0, self._due - now)
