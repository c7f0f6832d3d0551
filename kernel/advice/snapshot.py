"""What alerts and advice are made from: the figures of the kernel at one time. Plain data."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmos.syscalls.types import LedgerRow, Metric


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Metrics and ledger at `at`, monotonic seconds."""

    at: float
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """By full name with labels, as `read_metrics` answers."""
    rows: Sequence[LedgerRow] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    """Owner of a row -> the name of the model that it is."""

    def family(self, name: str) -> list[Metric]:
        """All metrics of one name."""
        return [metric for full, metric in self.metrics.items() if full.partition("{")[0] == name]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the metrics of one name that have these labels."""
        wanted = labels.items()
        return sum(metric.value for metric in self.family(name) if wanted <= metric.labels.items())


class Window:
    """The snapshots of the last `seconds`, at most about `points` of them."""

    def __init__(self, seconds: float, points: int = 60) -> None:
        self._seconds = seconds
        self._step = seconds / points
        self._kept: deque[Snapshot] = deque()

    def add(self, now: Snapshot) -> Snapshot:
        """Take up a snapshot; the one from the beginning of the window, which at first is the oldest that there is."""
        kept = self._kept
        if not kept or now.at - kept[-1].at >= self._step:
            kept.append(now)
        while len(kept) > 1 and kept[1].at <= now.at - self._seconds:
            kept.popleft()
        return kept[0]
