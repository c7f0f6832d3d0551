"""Counters, gauges and histograms of the kernel, in a registry of its own: a client library would cost start-up time.

A metric with labels is a family; its members are looked up once with `labels(...)` and kept, so that an increment is
one addition. Text form: the Prometheus exposition format 0.0.4.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from llmos.syscalls.types import Metric

LATENCY_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
"""Bucket bounds for durations in seconds."""

MAX_MEMBERS = 1000
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Counter:
    """Only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        self.value += amount


class Gauge:
    """Goes up and down; with `read`, asked when it is looked at."""

    __slots__ = ("read", "value")

    def __init__(self, read: Callable[[], float] | None = None) -> None:
        self.value: float = 0
        self.read = read

    def set(self, value: float) -> None:
        self.value = value

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        self.value -= amount


class Histogram:
    """Counts observations by size; the last count is of those above all bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum: float = 0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> dict[str, int]:
        """Observations at most as large as each bound; the last, `+Inf`, counts all."""
        total, buckets = 0, {}
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            buckets["+Inf" if bound == float("inf") else f"{bound:g}"] = total
        return buckets


M = TypeVar("M", Counter, Gauge, Histogram)


class Family(Generic[M]):
    """All metrics of one name; one member per combination of label values."""

    def __init__(self, name: str, help: str, unit: str, labels: tuple[str, ...], make: Callable[[], M]) -> None:
        self.name = name
        self.help = help
        self.unit = unit
        self.label_names = labels
        self._make: Callable[[], M] = make
        self._members: dict[tuple[str, ...], M] = {}

    def labels(self, *values: str) -> M:
        """The member with these label values, in the order of the names; keep it where it is used often.

        Beyond 1000 members all new ones share one whose values are `other`, so that no client can fill the memory.

        Raises:
            ValueError: not as many values as names.
        """
        member = self._members.get(values)
        if member is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} takes the labels {self.label_names}, not {values}")
            if len(self._members) >= MAX_MEMBERS:
                values = ("other",) * len(values)
            member = self._members.setdefault(values, self._make())
        return member

    def remove(self, *values: str) -> None:
        """Forget the member of something that has ended; nothing happens when there is none."""
        self._members.pop(values, None)

    def forget(self, label: str, value: str) -> None:
        """Remove all members with this value of a label. Raises ValueError when there is no such label."""
        at = self.label_names.index(label)
        for values in [values for values in self._members if values[at] == value]:
            del self._members[values]

    def members(self) -> Iterator[tuple[dict[str, str], M]]:
        """Each member with its labels."""
        for values, member in self._members.items():
            yield dict(zip(self.label_names, values, strict=True)), member


class Registry:
    """All metrics of a process."""

    def __init__(self) -> None:
        self._families: dict[str, Family[Counter] | Family[Gauge] | Family[Histogram]] = {}

    def counter(self, name: str, help: str, unit: str = "") -> Counter:
        """Declare a counter without labels. Raises ValueError for a bad or taken name, as do all of these."""
        return self.counters(name, help, (), unit).labels()

    def counters(self, name: str, help: str, labels: tuple[str, ...], unit: str = "") -> Family[Counter]:
        """Declare a family of counters."""
        family = Family(name, help, unit, labels, Counter)
        self._add(family)
        return family

    def gauge(self, name: str, help: str, unit: str = "", read: Callable[[], float] | None = None) -> Gauge:
        """Declare a gauge without labels."""
        family: Family[Gauge] = Family(name, help, unit, (), lambda: Gauge(read))
        self._add(family)
        return family.labels()

    def gauges(self, name: str, help: str, labels: tuple[str, ...], unit: str = "") -> Family[Gauge]:
        """Declare a family of gauges."""
        family = Family(name, help, unit, labels, Gauge)
        self._add(family)
        return family

    def histogram(self, name: str, help: str, unit: str = "", bounds: Sequence[float] = LATENCY_S) -> Histogram:
        """Declare a histogram without labels."""
        return self.histograms(name, help, (), unit, bounds).labels()

    def histograms(
        self, name: str, help: str, labels: tuple[str, ...], unit: str = "", bounds: Sequence[float] = LATENCY_S
    ) -> Family[Histogram]:
        """Declare a family of histograms; `bounds` must ascend."""
        if list(bounds) != sorted(set(bounds)):
            raise ValueError(f"the bounds of {name} do not ascend: {bounds}")
        family: Family[Histogram] = Family(name, help, unit, labels, lambda: Histogram(bounds))
        self._add(family)
        return family

    def families(self) -> Iterator[Family[Counter] | Family[Gauge] | Family[Histogram]]:
        """All declared families."""
        yield from self._families.values()

    def snapshot(self, prefix: str = "") -> dict[str, Metric]:
        """All metrics whose full name, labels included, starts with `prefix`. The value of a histogram is its sum."""
        found = {}
        for family in self._families.values():
            for labels, member in family.members():
                name = family.name + _label_text(labels)
                if name.startswith(prefix):
                    found[name] = _metric(family, labels, member)
        return found

    def render(self) -> str:
        """The Prometheus text format."""
        lines: list[str] = []
        for family in self._families.values():
            metrics = [_metric(family, labels, member) for labels, member in family.members()]
            if metrics:
                lines.append(f"# HELP {family.name} {_escape(family.help, quote=False)}")
                lines.append(f"# TYPE {family.name} {metrics[0].kind}")
            for metric in metrics:
                lines += _samples(family.name, metric)
        return "".join(f"{line}\n" for line in lines)

    def _add(self, family: Family[Counter] | Family[Gauge] | Family[Histogram]) -> None:
        for name in (family.name, *family.label_names):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name for a metric or label: use a-z, 0-9 and _")
        if family.name in self._families:
            raise ValueError(f"the metric {family.name} is declared twice")
        self._families[family.name] = family


def _metric(
    family: Family[Counter] | Family[Gauge] | Family[Histogram],
    labels: dict[str, str],
    member: Counter | Gauge | Histogram,
) -> Metric:
    buckets: dict[str, int] = {}
    if isinstance(member, Histogram):
        kind, value, buckets = "histogram", member.sum, member.cumulative()
    elif isinstance(member, Gauge):
        kind, value = "gauge", member.value if member.read is None else member.read()
    else:
        kind, value = "counter", member.value
    return Metric(kind=kind, value=value, unit=family.unit, help=family.help, labels=labels, buckets=buckets)


def _samples(name: str, metric: Metric) -> Iterator[str]:
    if metric.kind != "histogram":
        yield f"{name}{_label_text(metric.labels)} {metric.value:.17g}"
        return
    for bound, count in metric.buckets.items():
        yield f"{name}_bucket{_label_text({**metric.labels, 'le': bound})} {count}"
    yield f"{name}_sum{_label_text(metric.labels)} {metric.value:.17g}"
    yield f"{name}_count{_label_text(metric.labels)} {metric.buckets['+Inf']}"


def _label_text(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(text: str, quote: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text
