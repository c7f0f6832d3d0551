"""What the system suggests, and what it warns of: `/sys/advice` and `/sys/alerts` are lists of these."""

from __future__ import annotations

from .common import Number, Value


class Advice(Value):
    """A suggestion, with what it rests on and what it is expected to bring."""

    code: str
    """quantize, more_kv, pin, other_device, raise_quota, merge_adapter or rung."""
    about: str
    """The id of the model, or the name of the owner, that it is about."""
    name: str = ""
    """What people call that."""
    text: str
    evidence: dict[str, Number] = {}
    """The figures it rests on."""
    gain: dict[str, Number] = {}
    """The figures that are expected to change, as they will be afterwards or by how much they change."""
    action: str = ""
    """What to do: a command line, or a setting of the configuration."""


class Alert(Value):
    """A rule of the configuration that holds for something now."""

    rule: str
    """The name of the rule."""
    about: str
    """The device, driver, model or owner that it holds for; empty for the whole system."""
    severity: str
    text: str
    value: float
    """What was measured last."""
    limit: float
    """What it is compared with."""
    since: float
    """Seconds since the epoch."""
