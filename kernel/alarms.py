"""Alerts by the rules of the configuration: looked at once a second, told to the journal, a command, a webhook.

What is sent is sent by processes of its own, a bounded number at a time; the loop never waits for one.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from llmos.syscalls.types import Alert, Metric

from .advice.alarm import Alarm, Alarms, Change
from .advice.measures import families, measure
from .advice.snapshot import Snapshot, Window
from .alert_rules import AlertRule
from .children import Child, exit_text
from .instruments import refresh
from .pending import Timer

if TYPE_CHECKING:
    from .core import Kernel

AT_ONCE = 4
MOST_WAITING = 100
SHARES = ("memory", "error_rate", "drift")
SECONDS = ("latency", "queue")
"""Metrics whose values are shares, and seconds."""
WEBHOOK = ("-P", "-m", "llmos.kernel.advice.webhook")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What a command finds in LLMOS_ALERT and a webhook in the body."""

    rule: str
    state: str
    """raised or cleared."""
    about: str
    severity: str
    text: str
    value: float
    limit: float
    at: float
    """Seconds since the epoch."""


class Sender:
    """Runs commands and webhooks, some at a time."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._waiting: deque[tuple[AlertRule, str, list[str], dict[str, str]]] = deque()
        self._running: dict[Child, Timer] = {}

    def send(self, rule: AlertRule, message: Message) -> None:
        """Have an alert sent to wherever its rule says; more than can wait are dropped, and that is said."""
        told = {"LLMOS_ALERT": msgspec.json.encode(message).decode()}
        if rule.command:
            self._add(rule, rule.command[0], rule.command, told)
        if rule.webhook:
            argv = [sys.executable, *WEBHOOK, str(rule.timeout_s)]
            self._add(rule, "its webhook", argv, {**told, "LLMOS_WEBHOOK": rule.webhook})

    def kill_now(self) -> None:
        """For the end of the kernel."""
        self._waiting.clear()
        for child, timer in self._running.items():
            timer.cancel()
            child.kill_now()
        self._running.clear()

    def _add(self, rule: AlertRule, what: str, argv: list[str], told: dict[str, str]) -> None:
        if len(self._waiting) >= MOST_WAITING:
            text = f"the alert {rule.name} is not sent to {what}: {MOST_WAITING} wait already"
            self._kernel.log("alert", text, rule.name, level="warning")
            return
        self._waiting.append((rule, what, argv, told))
        self._next()

    def _next(self) -> None:
        while self._waiting and len(self._running) < AT_ONCE:
            self._start(*self._waiting.popleft())

    def _start(self, rule: AlertRule, what: str, argv: Sequence[str], told: dict[str, str]) -> None:
        kernel = self._kernel

        def ended(status: int) -> None:
            self._running.pop(child).cancel()
            if status:
                said = "; ".join(part for part in (exit_text(status), child.tail(1)) if part)
                text = f"the alert {rule.name} did not reach {what}: {said}"
                kernel.log("alert", text, rule.name, level="warning")
            self._next()

        try:
            child = Child(
                argv, {**os.environ, **told}, kernel.runner, kernel.watcher, ended,
                lambda line: kernel.log("alert", line, rule.name, level="debug"), new_group=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            kernel.log("alert", f"the alert {rule.name} did not reach {what}: {error}", rule.name, level="warning")
            return
        self._running[child] = kernel.runner.after(rule.timeout_s + 1, child.terminate)


class AlarmService:
    """The alerts of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._alarms = Alarms(kernel.config.alerts)
        self._windows: dict[str, Window] = {}
        self.sender = Sender(kernel)

    def reload(self, rules: Sequence[AlertRule]) -> None:
        """Other rules from now on."""
        self._alarms.replace(rules)
        names = {rule.name for rule in rules}
        self._windows = {name: window for name, window in self._windows.items() if name in names}

    def tick(self, now: int) -> None:
        """About once a second: look, decide, tell."""
        if not self._alarms.rules:
            return
        refresh(self._kernel)
        for rule in self._alarms.rules:
            seen = self._look(rule, now / 1e9)
            window = self._windows.setdefault(rule.name, Window(rule.window_s))
            values = measure(rule, seen, window.add(seen))
            for change in self._alarms.observe(rule, values, seen.at):
                self._tell(change)

    def raised(self) -> list[Alert]:
        """The alerts that are raised now, as `/sys/alerts` shows them."""
        now, wall = self._kernel.runner.clock() / 1e9, self._kernel.wall()
        return [
            Alert(
                rule=alarm.rule.name, about=alarm.about, severity=alarm.rule.severity, text=_text(alarm),
                value=alarm.value, limit=alarm.rule.limit, since=wall - (now - (alarm.raised_at or now)),
            )
            for alarm in self._alarms.raised
        ]  # fmt: skip

    def _look(self, rule: AlertRule, at: float) -> Snapshot:
        kernel = self._kernel
        metrics: dict[str, Metric] = {}
        for name in families(rule):
            metrics |= kernel.instruments.registry.snapshot(name)
        names = {model.host_id: model.name for model in kernel.models.by_id.values()}
        return Snapshot(at, metrics, kernel.ledger.rows() if rule.metric == "drift" else (), names)

    def _tell(self, change: Change) -> None:
        kernel, rule = self._kernel, change.rule
        state = "raised" if change.raised else "cleared"
        text = f"alert {rule.name} is {state}: {_text(change)}" + (", and nothing is known of it now" * change.gone)
        model = kernel.models.named(change.about)
        about = (model.id if model is not None else change.about) or "system"
        code = "alert.raised" if change.raised else "alert.cleared"
        reason = kernel.reason(
            code, text, rule.name, value=change.value, limit=rule.limit, clear=rule.cleared_at,
            for_s=change.seconds,
        )  # fmt: skip
        kernel.decide([about, rule.name], reason, rule.severity if change.raised else "info")
        message = Message(
            rule=rule.name, state=state, about=change.about, severity=rule.severity, text=text, value=change.value,
            limit=rule.limit, at=kernel.wall(),
        )  # fmt: skip
        self.sender.send(rule, message)


def _text(seen: Alarm | Change) -> str:
    rule = seen.rule
    what = f"{rule.metric} of {seen.about}" if seen.about else rule.metric
    beyond = "above" if rule.above is not None else "below"
    return f"{what}: {_figure(rule, seen.value)}, alarming when {beyond} {_figure(rule, rule.limit)}"


def _figure(rule: AlertRule, value: float) -> str:
    """A value of a rule's metric with its unit."""
    if rule.metric in SHARES:
        return f"{100 * value:.3g} %"
    return f"{value:.4g} s" if rule.metric in SECONDS else f"{value:.6g}"
