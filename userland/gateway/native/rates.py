"""Rates and quantiles from two readings of the kernel's counters and histograms. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmos.syscalls.types import Metric

REQUESTS = frozenset({"infer", "infer_stream", "embed"})
"""Calls that count as requests."""

Reading = Mapping[str, Metric]


def total(metrics: Reading, name: str, **labels: frozenset[str]) -> float:
    """The sum of a family's members; of a label only those of the given values."""
    return sum(
        metric.value
        for key, metric in metrics.items()
        if _family(key) == name and all(metric.labels.get(label) in values for label, values in labels.items())
    )


def buckets(metrics: Reading, name: str) -> dict[float, int]:
    """Observations at most as large as each bound, of all members of a histogram."""
    summed: dict[float, int] = {}
    for key, metric in metrics.items():
        if _family(key) == name:
            for bound, count in metric.buckets.items():
                summed[float(bound)] = summed.get(float(bound), 0) + count
    return summed


def _family(key: str) -> str:
    return key.partition("{")[0]


def quantile(share: float, before: Mapping[float, int], after: Mapping[float, int]) -> float | None:
    """The value that a share of the observations between two readings does not exceed; None when there were none.

    Linear inside of a bucket, as Prometheus' `histogram_quantile` does it; the last bucket answers its lower bound.
    """
    counts = [(bound, max(0, count - before.get(bound, 0))) for bound, count in sorted(after.items())]
    if not counts or not counts[-1][1]:
        return None
    rank = share * counts[-1][1]
    lower, below = 0.0, 0
    for bound, count in counts:
        if count >= rank and count > below:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


def above(limit: float, before: Mapping[float, int], after: Mapping[float, int]) -> int:
    """How many observations between two readings were larger than a bound."""
    every = after.get(float("inf"), 0) - before.get(float("inf"), 0)
    return max(0, every - (after.get(limit, 0) - before.get(limit, 0)))


def rates(now: Reading, before: Reading, long_before: Reading, seconds: float) -> dict[str, Any]:
    """The figures of the overview.

    Args:
        now, before: readings `seconds` apart, for what is counted per second.
        long_before: an earlier one, for quantiles.
    """

    def per_second(name: str, **labels: frozenset[str]) -> float:
        grown = total(now, name, **labels) - total(before, name, **labels)
        return max(0.0, grown) / seconds if seconds > 0 else 0.0

    def quantiles(name: str) -> tuple[float | None, float | None]:
        then, here = buckets(long_before, name), buckets(now, name)
        return quantile(0.5, then, here), quantile(0.95, then, here)

    first, whole = quantiles("llmos_time_to_first_token_seconds"), quantiles("llmos_e2e_request_latency_seconds")
    return {
        "requests_per_s": per_second("llmos_calls_total", call=REQUESTS),
        "tokens_per_s": per_second("llmos_generation_tokens_total"),
        "errors_per_s": per_second("llmos_errors_total"),
        "queue": int(total(now, "llmos_num_requests_waiting")),
        "first_token_p50_s": first[0],
        "first_token_p95_s": first[1],
        "request_p50_s": whole[0],
        "request_p95_s": whole[1],
    }
