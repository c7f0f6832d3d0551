"""When alerts are raised and cleared: hysteresis, whatever the values do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.advice.alarm import Alarms
from llmos.kernel.alert_rules import AlertRule

RULE = AlertRule(name="hot", metric="queue", above=10, clear=5, for_s=3, clear_s=2)


def _run(rule: AlertRule, values: list[float | None], about: str = "x") -> list[tuple[int, bool]]:
    """The seconds at which it was raised (True) or cleared, with a value each second."""
    alarms = Alarms([rule])
    found = []
    for at, value in enumerate(values):
        changes = alarms.observe(rule, {} if value is None else {about: value}, float(at))
        found += [(at, change.raised) for change in changes]
    return found


def test_it_is_raised_after_its_time_and_cleared_after_its_time() -> None:
    assert _run(RULE, [11, 11, 11]) == []
    assert _run(RULE, [11, 11, 11, 11, 11]) == [(3, True)]
    assert _run(RULE, [11] * 4 + [5, 5, 5]) == [(3, True), (6, False)]


def test_values_between_the_bounds_change_nothing_that_is_raised_and_end_what_is_pending() -> None:
    assert _run(RULE, [11, 11, 7, 11, 11, 11, 11]) == [(6, True)]
    assert _run(RULE, [11] * 4 + [7] * 9) == [(3, True)]
    assert _run(RULE, [11] * 4 + [5, 5, 7, 5, 5, 5]) == [(3, True), (9, False)]
    assert _run(RULE, [11] * 4 + [5, 11, 5, 5, 5]) == [(3, True), (8, False)]


def test_a_rule_without_times_is_raised_at_once() -> None:
    assert _run(AlertRule(name="n", metric="queue", below=3), [3, 2, 3]) == [(1, True), (2, False)]


def test_what_is_not_there_any_more_is_cleared() -> None:
    alarms = Alarms([RULE])
    for at in range(4):
        alarms.observe(RULE, {"a": 11, "b": 11 if at else 0}, float(at))
    assert [(alarm.about, alarm.value, alarm.raised_at) for alarm in alarms.raised] == [("a", 11, 3.0)]
    (change,) = alarms.observe(RULE, {}, 9.0)
    assert (change.about, change.raised, change.gone, change.seconds) == ("a", False, True, 6.0)
    assert alarms.raised == []


def test_new_rules_keep_what_is_raised_by_the_same_rule() -> None:
    alarms = Alarms([RULE])
    alarms.observe(RULE, {"a": 11}, 0.0)
    alarms.observe(RULE, {"a": 11}, 3.0)
    alarms.replace([RULE])
    assert len(alarms.raised) == 1
    alarms.replace([AlertRule(name="hot", metric="queue", above=20)])
    assert alarms.raised == []


@given(st.lists(st.sampled_from((0.0, 5.0, 7.0, 10.0, 11.0, None)), max_size=60))
def test_raised_and_cleared_take_turns_and_each_lasts(values: list[float | None]) -> None:
    changes = _run(RULE, values)
    assert [raised for _, raised in changes] == [number % 2 == 0 for number in range(len(changes))]
    for at, raised in changes:
        last = values[max(0, at - (3 if raised else 2)) : at + 1]
        if raised:
            assert len(last) == 4 and all(value is not None and value > 10 for value in last)
        elif values[at] is not None:
            assert all(value is not None and value <= 5 for value in last)
