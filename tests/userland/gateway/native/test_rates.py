"""Rates and quantiles from two readings."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from llmos.syscalls.types import Metric
from llmos.userland.gateway.native.rates import above, buckets, quantile, rates, total

BOUNDS = (0.1, 0.3, 1.0, 3.0)


def counter(name: str, value: float, **labels: str) -> tuple[str, Metric]:
    text = ",".join(f'{key}="{word}"' for key, word in labels.items())
    return f"{name}{{{text}}}" if text else name, Metric(kind="counter", value=value, labels=labels)


def histogram(name: str, values: list[float], **labels: str) -> tuple[str, Metric]:
    key, _ = counter(name, 0, **labels)
    counts = {f"{bound:g}": sum(value <= bound for value in values) for bound in BOUNDS}
    return key, Metric(kind="histogram", value=sum(values), labels=labels, buckets={**counts, "+Inf": len(values)})


def test_a_family_is_summed_by_its_whole_name() -> None:
    found = dict([counter("a_total", 3, call="infer"), counter("a_total", 4, call="stat"), counter("a_total_b", 9)])
    assert total(found, "a_total") == 7
    assert total(found, "a_total", call=frozenset({"infer", "embed"})) == 3
    assert total(found, "none") == 0


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=60), st.lists(st.floats(0.001, 10), max_size=30),
       st.sampled_from([0.5, 0.95]))  # fmt: skip
def test_a_quantile_lies_in_the_bucket_of_the_true_one(new: list[float], old: list[float], share: float) -> None:
    before = buckets(dict([histogram("h", old, model_name="a")]), "h")
    after = buckets(dict([histogram("h", old, model_name="a"), histogram("h", new, model_name="b")]), "h")
    found = quantile(share, before, after)
    # The smallest value that at least a share of them do not exceed.
    true = sorted(new)[max(0, -int(-(share * len(new)) // 1) - 1)]
    assert found is not None
    edges = (0.0, *BOUNDS)
    at = bisect_left(BOUNDS, true)
    upper = BOUNDS[min(at, len(BOUNDS) - 1)]
    assert edges[at] <= found <= upper


def test_without_observations_there_is_no_quantile() -> None:
    some = buckets(dict([histogram("h", [0.5])]), "h")
    assert quantile(0.5, some, some) is None and quantile(0.5, {}, {}) is None


def test_what_is_above_a_bound() -> None:
    before, after = (buckets(dict([histogram("h", values)]), "h") for values in ([0.5], [0.5, 0.05, 0.2, 5.0]))
    assert above(0.1, before, after) == 2 and above(0.1, after, after) == 0 and above(0.1, after, {}) == 0


def test_figures_per_second_and_of_now() -> None:
    before = dict([
        counter("llmos_calls_total", 10, call="infer"), counter("llmos_calls_total", 99, call="stat_object"),
        counter("llmos_errors_total", 1, call="infer", error="Busy"), counter("llmos_generation_tokens_total", 100),
    ])  # fmt: skip
    now = dict([
        counter("llmos_calls_total", 14, call="infer"), counter("llmos_calls_total", 2, call="embed"),
        counter("llmos_calls_total", 999, call="stat_object"), counter("llmos_generation_tokens_total", 160),
        counter("llmos_errors_total", 3, call="infer", error="Busy"),
        counter("llmos_num_requests_waiting", 2, model_name="a"),
        counter("llmos_num_requests_waiting", 1, model_name="b"),
        histogram("llmos_time_to_first_token_seconds", [0.2, 0.2], model_name="a"),
    ])  # fmt: skip
    found = rates(now, before, before, 2.0)
    assert (found["requests_per_s"], found["tokens_per_s"], found["errors_per_s"], found["queue"]) == (
        3.0,
        30.0,
        1.0,
        3,
    )
    assert 0.1 <= found["first_token_p50_s"] <= 0.3 and found["request_p50_s"] is None
    # A kernel that began anew counts from zero.
    assert rates(before, now, now, 1.0)["requests_per_s"] == 0.0
    assert rates(now, before, before, 0.0)["requests_per_s"] == 0.0
