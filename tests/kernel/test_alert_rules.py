"""The rules of alerts: what is taken, and what is said of what is not."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.kernel.alert_rules import AlertRule, parse
from llmos.kernel.settings import ConfigError

GOOD = {"name": "n", "metric": "queue", "above": 10}


def test_a_rule_has_its_bounds() -> None:
    (rule,) = parse([{**GOOD, "clear": 5, "for_s": 3}])
    assert (rule.limit, rule.cleared_at, rule.for_s, rule.severity) == (10, 5, 3, "warning")
    assert rule.bad(10.1) and not rule.bad(10) and rule.well(5) and not rule.well(5.1)
    (rule,) = parse([{"name": "free", "metric": 'llmos_device_bytes{what="free"}', "below": 100}])
    assert rule.cleared_at == rule.limit == 100
    assert rule.bad(99) and not rule.bad(100) and rule.well(100) and not rule.well(99)
    assert AlertRule(name="n", metric="queue").limit == 0 and parse([]) == ()


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({}, "expected [[alerts]] tables"),
        ([5], "alerts[0]: expected a table"),
        ([{**GOOD, "abvoe": 1}], "unknown key alerts[0].abvoe; did you mean 'above'"),
        ([{**GOOD, "metric": "latencyy"}], "expected latency, queue"),
        ([{**GOOD, "metric": "llmos_x{a}"}], "or a metric such as"),
        ([{"name": "n", "metric": "queue"}], "give either above or below"),
        ([{**GOOD, "below": 1}], "give either above or below"),
        ([{**GOOD, "clear": 11}], "alerts[0].clear is 11.0, which is beyond the bound 10"),
        ([{**GOOD, "webhook": "ftp://x"}], "expected an http or https URL"),
        ([{**GOOD, "for_s": -1}], "alerts[0].for_s is -1"),
        ([GOOD, GOOD], "two rules are called 'n'"),
    ],
)
def test_a_wrong_rule_names_the_key(tables: Any, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(tables)
    assert said in str(raised.value)
