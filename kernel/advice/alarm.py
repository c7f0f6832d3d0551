"""When an alert is raised and when it is cleared, with hysteresis. Pure: `now` is seconds of any clock that only grows.

quiet -> (bad) pending -> (bad for `for_s`) raised -> (well) clearing -> (well for `clear_s`) quiet. Between the bound
and the bound of being well a pending one is quiet again and a raised one stays raised, so a value that swings around
the bound gives one alert, not many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..alert_rules import AlertRule


@dataclass(frozen=True, slots=True)
class Change:
    """An alert that is raised, or cleared, now."""

    rule: AlertRule
    about: str
    raised: bool
    value: float
    """What was measured last."""
    seconds: float
    """How long it had been bad before it was raised; how long it was raised, when it is cleared."""
    gone: bool = False
    """Cleared, since nothing can be said of the thing any more."""


@dataclass(slots=True)
class Alarm:
    """What is known of one rule and one thing."""

    rule: AlertRule
    about: str
    value: float
    bad_since: float
    raised_at: float | None = None
    well_since: float | None = None


class Alarms:
    """All alarms that are pending or raised."""

    def __init__(self, rules: Iterable[AlertRule]) -> None:
        self.rules = tuple(rules)
        self._alarms: dict[tuple[str, str], Alarm] = {}

    def replace(self, rules: Iterable[AlertRule]) -> None:
        """Other rules from now on; alarms of rules that stay the same go on."""
        self.rules = tuple(rules)
        kept = {rule.name: rule for rule in self.rules}
        self._alarms = {key: alarm for key, alarm in self._alarms.items() if kept.get(key[0]) == alarm.rule}

    @property
    def raised(self) -> list[Alarm]:
        """Those that are raised now, the oldest first."""
        return sorted((a for a in self._alarms.values() if a.raised_at is not None), key=lambda a: a.raised_at or 0.0)

    def observe(self, rule: AlertRule, values: Mapping[str, float], now: float) -> list[Change]:
        """What the values of a rule, by what they are about, change."""
        changes = []
        for about, value in values.items():
            changes += self._value(rule, about, value, now)
        for key, alarm in list(self._alarms.items()):
            if key[0] == rule.name and key[1] not in values:
                del self._alarms[key]
                if alarm.raised_at is not None:
                    changes.append(Change(rule, key[1], False, alarm.value, now - alarm.raised_at, gone=True))
        return changes

    def _value(self, rule: AlertRule, about: str, value: float, now: float) -> list[Change]:
        key = rule.name, about
        alarm = self._alarms.get(key)
        if alarm is None:
            if not rule.bad(value):
                return []
            alarm = self._alarms[key] = Alarm(rule, about, value, now)
        alarm.value = value
        if alarm.raised_at is None:
            if not rule.bad(value):
                del self._alarms[key]
            elif now - alarm.bad_since >= rule.for_s:
                alarm.raised_at = now
                return [Change(rule, about, True, value, now - alarm.bad_since)]
            return []
        if not rule.well(value):
            alarm.well_since = None
            return []
        alarm.well_since = now if alarm.well_since is None else alarm.well_since
        if now - alarm.well_since < rule.clear_s:
            return []
        del self._alarms[key]
        return [Change(rule, about, False, value, now - alarm.raised_at)]
