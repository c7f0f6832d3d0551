"""What a rule of alerts looks at, taken from two snapshots: values by what they are about. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from llmos.syscalls.types import Metric

from ..alert_rules import AlertRule
from .snapshot import Snapshot

REQUESTS = ("infer", "infer_stream", "embed")
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')
_ABOUT = ("model_name", "device", "driver", "tenant", "call")
"""The first of these labels that a metric has says what it is about."""
Values = dict[str, float]


def measure(rule: AlertRule, now: Snapshot, before: Snapshot) -> Values:
    """The values of a rule's metric by what they are about; `before` is from the beginning of its window.

    A thing of which nothing can be said, as of a model without requests, is left out.
    """
    built_in = _BUILT_IN.get(rule.metric)
    return built_in(rule, now, before) if built_in is not None else _of_metric(rule.metric, rule, now, before)


def _of_metric(metric: str, rule: AlertRule, now: Snapshot, before: Snapshot) -> Values:
    name, _, labels = metric.partition("{")
    wanted = dict(_LABEL.findall(labels))
    old = {_key(each): each for each in before.family(name)}
    seconds = now.at - before.at
    values: Values = {}
    for each in now.family(name):
        value = _value(each, old.get(_key(each)), rule, seconds) if wanted.items() <= each.labels.items() else None
        if value is not None:
            about = _about(each)
            values[about] = max(value, values.get(about, value))
    return values


def _value(metric: Metric, old: Metric | None, rule: AlertRule, seconds: float) -> float | None:
    if metric.kind == "gauge":
        return metric.value
    if metric.kind == "counter":
        return (metric.value - (old.value if old is not None else 0.0)) / seconds if seconds > 0 else None
    return quantile(metric, old, rule.quantile, rule.at_least)


def quantile(metric: Metric, old: Metric | None, share: float, at_least: int) -> float | None:
    """The quantile of what a histogram has counted since `old`: the upper bound of the bucket it lies in (as the
    histogram_quantile of Prometheus without interpolation), that of the last bucket being its lower bound. None for
    fewer than `at_least` observations."""
    earlier = old.buckets if old is not None else {}
    counts = {bound: count - earlier.get(bound, 0) for bound, count in metric.buckets.items()}
    total = counts.pop("+Inf", 0)
    if total < at_least:
        return None
    return next((float(bound) for bound, count in counts.items() if count >= share * total), float([*counts][-1]))


def _latency(rule: AlertRule, now: Snapshot, before: Snapshot) -> Values:
    """Time to the first token by model, as a quantile of the window."""
    return _of_metric("llmos_time_to_first_token_seconds", rule, now, before)


def _queue(rule: AlertRule, now: Snapshot, before: Snapshot) -> Values:
    """Seconds that the oldest waiting request has waited."""
    return _of_metric("llmos_queue_oldest_seconds", rule, now, before)


def _memory(rule: AlertRule, now: Snapshot, before: Snapshot) -> Values:
    """Share of a device's bytes that is taken, 0 to 1."""
    return {
        device: 1 - now.value("llmos_device_bytes", device=device, what="free") / each.value
        for each in now.family("llmos_device_total_bytes")
        for device in [each.labels["device"]]
        if each.value > 0
    }


def _error_rate(rule: AlertRule, now: Snapshot, before: Snapshot) -> Values:
    """Share of the inferences of the window that ended with an error, 0 to 1."""

    def grown(name: str) -> float:
        return sum(now.value(name, call=call) - before.value(name, call=call) for call in REQUESTS)

    requests = grown("llmos_calls_total")
    return {"": grown("llmos_errors_total") / requests} if requests >= rule.at_least else {}


def _restarts(rule: AlertRule, now: Snapshot, before: Snapshot) -> Values:
    """Restarts of a driver within the window."""
    name = "llmos_driver_restarts"
    return {
        each.labels["driver"]: each.value - before.value(name, driver=each.labels["driver"])
        for each in now.family(name)
    }


def _drift(rule: AlertRule, now: Snapshot, before: Snapshot) -> Values:
    """By how much of what was planned the measured bytes of a model differ from it; its largest difference."""
    planned: dict[tuple[str, str], int] = {}
    measured: dict[tuple[str, str], int] = {}
    for row in now.rows:
        name = now.names.get(row.owner)
        if name is not None and row.predicted and row.allocator:
            planned[name, row.device] = planned.get((name, row.device), 0) + row.predicted
            measured[name, row.device] = measured.get((name, row.device), 0) + row.allocator
    values: Values = {}
    for (name, device), bytes in planned.items():
        values[name] = max(values.get(name, 0.0), abs(measured[name, device] - bytes) / bytes)
    return values


_BUILT_IN: Mapping[str, Callable[[AlertRule, Snapshot, Snapshot], Values]] = {
    "latency": _latency, "queue": _queue, "memory": _memory, "error_rate": _error_rate, "restarts": _restarts,
    "drift": _drift,
}  # fmt: skip
_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "latency": ("llmos_time_to_first_token_seconds",),
    "queue": ("llmos_queue_oldest_seconds",),
    "memory": ("llmos_device_bytes", "llmos_device_total_bytes"),
    "error_rate": ("llmos_calls_total", "llmos_errors_total"),
    "restarts": ("llmos_driver_restarts",),
    "drift": (),
}


def families(rule: AlertRule) -> tuple[str, ...]:
    """The names of the metrics that a rule needs."""
    return _FAMILIES.get(rule.metric, (rule.metric.partition("{")[0],))


def _key(metric: Metric) -> tuple[tuple[str, str], ...]:
    return tuple(metric.labels.items())


def _about(metric: Metric) -> str:
    named = next((metric.labels[name] for name in _ABOUT if name in metric.labels), None)
    return named if named is not None else " ".join(metric.labels.values())
