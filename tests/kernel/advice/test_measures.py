"""What rules look at: each measure from its metrics, as the kernel itself counts them."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.kernel.advice.measures import families, measure
from llmos.kernel.advice.snapshot import Snapshot
from llmos.kernel.alert_rules import BUILT_IN, AlertRule
from llmos.kernel.instruments import Instruments
from llmos.syscalls.types import LedgerRow


def _rule(metric: str, **given: Any) -> AlertRule:
    return AlertRule(name="n", metric=metric, above=1, **given)


def _seen(at: float, instruments: Instruments, **given: Any) -> Snapshot:
    return Snapshot(at, instruments.registry.snapshot(), **given)


def test_a_gauge_is_taken_as_it_is_and_a_counter_as_its_rate() -> None:
    i = Instruments()
    i.sessions.set(3)
    i.calls.labels("infer").inc(5)
    before = _seen(10.0, i)
    i.calls.labels("infer").inc(20)
    i.calls.labels("embed").inc(4)
    now = _seen(20.0, i)
    assert measure(_rule("llmos_sessions"), now, before) == {"": 3}
    assert measure(_rule("llmos_calls_total"), now, before) == {"infer": 2.0, "embed": 0.4}
    assert measure(_rule('llmos_calls_total{call="embed"}'), now, before) == {"embed": 0.4}
    assert measure(_rule("llmos_calls_total"), now, now) == {}
    i.driver_values.labels("cpu0", "w-1", "pages").set(7)
    assert measure(_rule("llmos_driver"), _seen(21.0, i), now) == {"cpu0": 7}
    i.models.labels("awake").set(2)
    assert measure(_rule("llmos_models"), _seen(21.0, i), now) == {"awake": 2}


def test_latency_is_a_quantile_of_the_window() -> None:
    i = Instruments()
    for _ in range(100):
        i.to_first.labels("fox").observe(50)
    before = _seen(0.0, i)
    for number in range(20):
        i.to_first.labels("fox").observe(0.002 if number < 18 else 0.5)
    now = _seen(60.0, i)
    assert measure(_rule("latency"), now, before) == {"fox": 1.0}
    assert measure(_rule("latency", quantile=0.9), now, before) == {"fox": 0.003}
    assert measure(_rule("latency", at_least=21), now, before) == {}
    assert measure(_rule("latency", quantile=0.5), now, Snapshot(0.0)) == {"fox": 100.0}
    i.to_first.labels("slow").observe(1000)
    found = measure(_rule("latency", at_least=1), _seen(61.0, i), now)
    assert found == {"slow": 100.0}, "beyond the last bound its value is that bound"


def test_queue_memory_errors_and_restarts() -> None:
    i = Instruments()
    i.oldest.set(12.5)
    for what, held in (("weights", 60), ("kv", 15), ("free", 25)):
        i.device_bytes.labels("cpu0", what).set(held)
    i.device_total.labels("cpu0").set(100)
    i.device_total.labels("gone").set(0)
    i.restarts.labels("cpu0").set(1)
    i.calls.labels("infer").inc(10)
    before = _seen(0.0, i)
    i.restarts.labels("cpu0").set(3)
    i.calls.labels("infer").inc(15)
    i.calls.labels("embed").inc(5)
    i.calls.labels("list_dir").inc(500)
    i.errors.labels("infer", "Busy").inc(4)
    i.errors.labels("list_dir", "NotFound").inc(300)
    now = _seen(60.0, i)
    assert measure(_rule("queue"), now, before) == {"": 12.5}
    assert measure(_rule("memory"), now, before) == {"cpu0": 0.75}
    assert measure(_rule("error_rate"), now, before) == {"": 0.2}
    assert measure(_rule("error_rate", at_least=21), now, before) == {}
    assert measure(_rule("restarts"), now, before) == {"cpu0": 2}


def test_drift_is_of_what_was_planned_for_each_model() -> None:
    def row(owner: str, predicted: int, allocator: int, device: str = "cpu0", what: str = "weights") -> LedgerRow:
        return LedgerRow(device=device, what=what, owner=owner, predicted=predicted, allocator=allocator)

    rows = [
        row("w-1", 100, 130), row("w-1", 100, 90, what="kv"), row("w-2", 0, 50), row("w-2", 50, 0), row("l-1", 1, 9),
        row("w-3", 100, 60), row("w-3", 100, 110, device="cuda0"),
    ]  # fmt: skip
    now = Snapshot(0.0, {}, rows, {"w-1": "fox", "w-2": "owl", "w-3": "elk"})
    assert measure(_rule("drift"), now, now) == {"fox": 0.1, "elk": 0.4}


@pytest.mark.parametrize("metric", [*BUILT_IN, 'llmos_calls_total{call="infer"}'])
def test_each_rule_says_which_metrics_it_needs(metric: str) -> None:
    names = {family.name for family in Instruments().registry.families()}
    assert set(families(_rule(metric))) <= names and (families(_rule(metric)) or metric == "drift")
