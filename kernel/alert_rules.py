"""The rules of alerts, as the configuration has them: `[[alerts]]`, checked when the file is read."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from .settings import ConfigError, Section, convert

BUILT_IN = ("latency", "queue", "memory", "error_rate", "restarts", "drift")
"""Measures that no single metric gives; any other `metric` is the name of a metric."""

_METRIC = re.compile(r'llmos_[a-z0-9_]+(\{[a-z_]+="[^"{}]*"(,[a-z_]+="[^"{}]*")*\})?')
_URL = re.compile(r"https?://[^\s]+")

Seconds = Annotated[float, Meta(ge=0)]


class AlertRule(Section):
    """One rule. It holds for each thing (model, device, driver) on its own."""

    name: Annotated[str, Meta(min_length=1, max_length=80)]
    metric: str
    """latency, queue, memory, error_rate, restarts, drift, or a metric: a gauge is taken as it is, a counter as its
    rate per second, a histogram as its quantile."""
    above: float | None = None
    """Raised above this; or"""
    below: float | None = None
    """below this."""
    clear: float | None = None
    """Cleared at or beyond this, on the good side of the bound; the bound itself by default."""
    for_s: Seconds = 0
    """It has to be so for so long before the alert is raised,"""
    clear_s: Seconds = 0
    """and to be well for so long before it is cleared."""
    window_s: Annotated[float, Meta(ge=1, le=3600)] = 60
    """Over how long rates, shares and quantiles are taken."""
    quantile: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    at_least: Annotated[int, Meta(ge=1)] = 20
    """Fewer requests within the window say nothing about a quantile or a share of errors."""
    severity: Literal["info", "warning", "error"] = "warning"
    command: list[str] = field(default_factory=list)
    """A program and its arguments, run without a shell; the alert stands in LLMOS_ALERT, as JSON."""
    webhook: str = ""
    """An http or https URL to which the alert is sent as JSON, by POST."""
    timeout_s: Annotated[float, Meta(gt=0, le=300)] = 10
    """A command or webhook that takes longer is ended."""

    @property
    def limit(self) -> float:
        """The bound."""
        return self.above if self.above is not None else self.below if self.below is not None else 0.0

    @property
    def cleared_at(self) -> float:
        """The bound of being well."""
        return self.limit if self.clear is None else self.clear

    def bad(self, value: float) -> bool:
        """Whether a value is beyond the bound."""
        return value > self.limit if self.above is not None else value < self.limit

    def well(self, value: float) -> bool:
        """Whether a value is at or beyond the bound of being well."""
        return value <= self.cleared_at if self.above is not None else value >= self.cleared_at


def parse(tables: object) -> tuple[AlertRule, ...]:
    """The rules of a file.

    Raises:
        ConfigError: a key or value is wrong.
    """
    if not isinstance(tables, list):
        raise ConfigError(f"alerts: expected [[alerts]] tables, got {tables!r}")
    rules = tuple(_rule(table, f"alerts[{number}]") for number, table in enumerate(tables))
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"alerts: two rules are called {name!r}; give each a name of its own")
    return rules


def _rule(table: Any, where: str) -> AlertRule:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table, got {table!r}")
    rule = convert(table, AlertRule, where)
    if rule.metric not in BUILT_IN and not _METRIC.fullmatch(rule.metric):
        known = ", ".join(BUILT_IN)
        raise ConfigError(f"{where}.metric is {rule.metric!r}; expected {known}, or a metric such as llmos_sessions")
    if (rule.above is None) == (rule.below is None):
        raise ConfigError(f"{where}: give either above or below")
    if rule.bad(rule.cleared_at):
        raise ConfigError(f"{where}.clear is {rule.clear}, which is beyond the bound {rule.limit}")
    if rule.webhook and not _URL.fullmatch(rule.webhook):
        raise ConfigError(f"{where}.webhook is {rule.webhook!r}; expected an http or https URL")
    return rule
