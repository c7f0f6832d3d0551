"""Counters, gauges, histograms and the two ways to read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.metrics import MAX_MEMBERS, Histogram, Registry
from llmos.syscalls.types import Metric


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_a_counter(registry: Registry) -> None:
    counter = registry.counter("calls_total", "Calls", "calls")
    counter.inc()
    counter.inc(2.5)
    assert registry.snapshot() == {"calls_total": Metric(kind="counter", value=3.5, unit="calls", help="Calls")}


def test_a_gauge_and_one_that_is_asked(registry: Registry) -> None:
    gauge = registry.gauge("sessions", "Open sessions")
    gauge.set(5)
    gauge.inc()
    gauge.dec(2)
    asked = [1.0]
    registry.gauge("resident", "Bytes", "bytes", read=lambda: asked[0])
    asked[0] = 7.0
    found = registry.snapshot()
    assert (found["sessions"].value, found["resident"].value) == (4, 7.0)
    assert found["resident"].kind == "gauge" and found["resident"].unit == "bytes"


def test_members_of_a_family(registry: Registry) -> None:
    calls = registry.counters("calls_total", "Calls", ("call", "error"))
    calls.labels("infer", "none").inc()
    calls.labels("infer", "none").inc()
    calls.labels("tune", "none").inc()
    assert calls.labels("infer", "none") is calls.labels("infer", "none")
    found = registry.snapshot()
    assert found['calls_total{call="infer",error="none"}'].value == 2
    assert found['calls_total{call="infer",error="none"}'].labels == {"call": "infer", "error": "none"}
    assert list(registry.snapshot('calls_total{call="tune"')) == ['calls_total{call="tune",error="none"}']
    assert registry.snapshot("sessions") == {}
    calls.remove("infer", "none")
    calls.remove("infer", "none")
    assert list(registry.snapshot()) == ['calls_total{call="tune",error="none"}']
    with pytest.raises(ValueError, match="takes the labels"):
        calls.labels("infer")


def test_the_members_of_something_that_has_ended_are_forgotten(registry: Registry) -> None:
    held = registry.gauges("held", "Bytes", ("device", "model"))
    for device, model in (("a", "x"), ("b", "x"), ("a", "y")):
        held.labels(device, model).set(1)
    held.forget("model", "x")
    held.forget("model", "z")
    assert [labels for labels, _gauge in held.members()] == [{"device": "a", "model": "y"}]
    with pytest.raises(ValueError, match="tuple"):
        held.forget("driver", "x")


def test_all_families_can_be_named(registry: Registry) -> None:
    registry.counter("calls_total", "Calls")
    registry.gauges("models", "Models", ("state",))
    assert [family.name for family in registry.families()] == ["calls_total", "models"]


def test_gauges_by_label(registry: Registry) -> None:
    registry.gauges("models", "Models", ("state",)).labels("awake").set(2)
    assert registry.snapshot()['models{state="awake"}'].value == 2


def test_no_client_can_make_members_without_end(registry: Registry) -> None:
    family = registry.counters("calls_total", "Calls", ("tenant",))
    for number in range(MAX_MEMBERS + 50):
        family.labels(f"t{number}").inc()
    found = registry.snapshot()
    assert len(found) == MAX_MEMBERS + 1 and found['calls_total{tenant="other"}'].value == 50


def test_a_histogram_counts_by_size(registry: Registry) -> None:
    histogram = registry.histogram("seconds", "Time", "seconds", bounds=(0.1, 1, 10))
    for value in (0.05, 0.1, 0.5, 5, 50):
        histogram.observe(value)
    metric = registry.snapshot()["seconds"]
    assert metric.kind == "histogram" and metric.value == pytest.approx(55.65)
    assert metric.buckets == {"0.1": 2, "1": 3, "10": 4, "+Inf": 5}


@pytest.mark.parametrize("bounds", [(1, 1), (2, 1)])
def test_bounds_must_ascend(registry: Registry, bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="do not ascend"):
        registry.histogram("seconds", "Time", bounds=bounds)


@pytest.mark.parametrize("name", ["", "Calls", "1st", "a-b", "a b"])
def test_names_are_checked(registry: Registry, name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        registry.counter(name, "x")
    with pytest.raises(ValueError, match="is no name"):
        registry.counters("calls", "x", (name,))


def test_a_name_is_declared_once(registry: Registry) -> None:
    registry.counter("calls", "x")
    with pytest.raises(ValueError, match="twice"):
        registry.gauge("calls", "x")


def test_the_text_format(registry: Registry) -> None:
    registry.counter("calls_total", "Calls\nand \\ more").inc()
    registry.counters("empty_total", "Nothing yet", ("a",))
    registry.gauges("size", "Sizes", ("path",)).labels('a"b\\c\nd').set(0.1)
    registry.histograms("seconds", "Time", ("call",), bounds=(1,)).labels("infer").observe(2)
    assert registry.render() == (
        "# HELP calls_total Calls\\nand \\\\ more\n"
        "# TYPE calls_total counter\n"
        "calls_total 1\n"
        "# HELP size Sizes\n"
        "# TYPE size gauge\n"
        'size{path="a\\"b\\\\c\\nd"} 0.10000000000000001\n'
        "# HELP seconds Time\n"
        "# TYPE seconds histogram\n"
        'seconds_bucket{call="infer",le="1"} 0\n'
        'seconds_bucket{call="infer",le="+Inf"} 1\n'
        'seconds_sum{call="infer"} 2\n'
        'seconds_count{call="infer"} 1\n'
    )


@given(st.lists(st.floats(-10, 200), max_size=50))
def test_buckets_count_what_is_at_most_as_large(values: list[float]) -> None:
    bounds = (0.0, 1.0, 100.0)
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    expected = {f"{bound:g}": sum(v <= bound for v in values) for bound in bounds}
    assert histogram.cumulative() == {**expected, "+Inf": len(values)}
