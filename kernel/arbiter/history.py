"""What was seen of models: how often they are asked for, and how long they take to load and to wake.

A model is known by its path, version and device, so that what was learned outlives its unloading. Pure: times are
monotonic nanoseconds. A model that was never measured is taken to be as fast as the others of its device, by bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llmos.syscalls.types import WorkClass

from .expectation import AHEAD, Expectation
from .residence import SECOND

Way = Literal["load", "wake"]
"""From files, or from host memory."""
WAYS: tuple[Way, Way] = ("load", "wake")

NEWEST = 0.3
"""How much the newest measurement counts in a moving mean."""
NEWEST_GAP = 0.002
"""How much the newest time between requests counts, once there were many."""
SUPPOSED_RATE: dict[Way, float] = {"load": 1e9, "wake": 8e9}
"""Bytes in a second, as long as nothing was measured on a device."""
CLASS_WEIGHT = {WorkClass.INTERACTIVE: 1.0, WorkClass.BATCH: 0.25, WorkClass.BACKGROUND: 0.0625}


def weight_of(work_class: WorkClass, priority: int) -> float:
    """How much the wait of a request counts: interactive before batch before background, and by its priority.

    Each 100 of priority double it, up to eightfold; below 0 they halve it.
    """
    return CLASS_WEIGHT[work_class] * 2 ** max(-3.0, min(priority / 100, 3.0))


@dataclass(frozen=True, slots=True)
class Key:
    """A model on a device."""

    path: str
    version: str
    device: str


@dataclass(slots=True)
class _Record:
    weight: float = 1.0
    """Moving mean of how much the waits of its requests count."""
    seconds: dict[Way, float] = field(default_factory=dict)


class History:
    """What was seen of all models, whether they are loaded now or not; of the `limit` that were asked for last."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._records: dict[Key, _Record] = {}
        self._expected: Expectation[Key] = Expectation()
        self._speed: dict[tuple[str, Way], float] = {}
        self._gap_s = 0.0
        """Moving mean of the time between requests."""
        self._gaps = 0
        self._last: int | None = None

    def asked(self, key: Key, now: int, weight: float = 1.0) -> None:
        """Somebody asked for a model; `weight` says how much the wait of who asks counts."""
        if self._last is not None:
            self._gaps += 1
            self._gap_s += (max(now - self._last, 0) / SECOND - self._gap_s) * max(1 / self._gaps, NEWEST_GAP)
        self._last = now
        record = self._records.pop(key, None) or _Record(weight)
        record.weight += (weight - record.weight) * NEWEST
        self._records[key] = record
        self._expected.asked(key)
        self._drop_oldest()

    def rate(self, key: Key) -> float:
        """Expected uses of a model in a second, each by its weight; of one that nobody asked for as of any unknown."""
        if not self._gaps:
            return 0.0
        record = self._records.get(key)
        weight = 1.0 if record is None else record.weight
        return weight * self._expected.uses(key) / AHEAD / max(self._gap_s, 1e-3)

    def measured(self, key: Key, way: Way, bytes: int, seconds: float) -> None:
        """A load or wake of so many bytes took so long."""
        record = self._records.setdefault(key, _Record())
        self._drop_oldest()
        before = record.seconds.get(way, seconds)
        record.seconds[way] = before + NEWEST * (seconds - before)
        if bytes > 0 and seconds > 0:
            place, speed = (key.device, way), bytes / seconds
            known = self._speed.get(place, speed)
            self._speed[place] = known + NEWEST * (speed - known)

    def seconds(self, key: Key, way: Way, bytes: int) -> float:
        """How long a load or wake would take, measured if it ever was, else by the rate of its device."""
        record = self._records.get(key)
        if record is not None and way in record.seconds:
            return record.seconds[way]
        return bytes / self._speed.get((key.device, way), SUPPOSED_RATE[way])

    def _drop_oldest(self) -> None:
        if len(self._records) > self._limit:
            oldest = next(iter(self._records))
            del self._records[oldest]
            self._expected.forget(oldest)
