"""Commands that explain: why, alerts."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Sequence

from llmos.syscalls.errors import NotFound
from llmos.syscalls.types import Number, Reason

from .. import text
from ..cli import Cli

_OUTPUT = "program"
"""The code of what programs printed: each line stands for itself, however often it comes."""
_BELOW = " " * 21
"""What is said of a reason stands below its text, beside the time."""
_ID = re.compile(r"\b[mw]-[0-9a-f-]+\b")
_BYTES = re.compile(r"(^|_)(bytes|needed|free|freed|frees|evictable|total|short|weights)$")
_SECONDS = re.compile(r"(^|_)(s|seconds)$")
_MILLISECONDS = re.compile(r"_ms$")
_UNIT = re.compile(r"_(per_s|s|ms|bytes)$")


def why(cli: Cli, values: Namespace) -> int:
    reasons = cli.system.why(values.object)
    if cli.out.result(reasons):
        return 0
    if not reasons:
        raise NotFound(f"nothing is known about {values.object!r}: see ps, tasks, devices, drivers for names and ids")
    names = _names(cli)
    printed = [reason for reason in reasons if reason.code == "driver"]
    for reason, times in once_each([reason for reason in reasons if reason.code != "driver"]):
        often = f"  ({times} times)" if times > 1 else ""
        said = _ID.sub(lambda found: names.get(found[0], found[0]), reason.text)
        cli.out.line(f"{text.clock(reason.at) if reason.at else 'now':19}  {said}{often}")
        for line in details(reason):
            cli.out.line(_BELOW + line)
    if printed:
        lines = f"{len(printed)} lines" if len(printed) > 1 else "one line"
        cli.out.note(f"it printed {lines} too: llmos logs {values.object} --level debug")
    return 0


def _names(cli: Cli) -> dict[str, str]:
    """What people call the ids of models and of their weights."""
    models = cli.system.models()
    return {str(id): info.name for info in models for id in (info.id, info.fields.get("weights", info.id))}


def details(reason: Reason) -> list[str]:
    """What stands below the text of a reason: its numbers, the rule, what would change it."""
    numbers = ", ".join(f"{label(name)} {figure(name, value)}" for name, value in reason.numbers.items())
    said = (("numbers", numbers), ("rule", reason.rule), ("to change it", reason.change))
    return [f"{what}: {value}" for what, value in said if value]


def label(name: str) -> str:
    """What a number is called for people: the figure beside it has the unit."""
    return _UNIT.sub("", name).replace("_", " ")


def figure(name: str, value: Number) -> str:
    """A number with the unit that its name tells: bytes, seconds, or as it is."""
    if isinstance(value, str):
        return value
    if _BYTES.search(name):
        return text.size(value)
    if name.endswith("_per_s"):
        return f"{value:.4g}/s"
    if name == "keep_alive_s" and value < 0:
        return "forever"
    if _SECONDS.search(name):
        return text.duration(value)
    if _MILLISECONDS.search(name):
        return text.duration(value / 1000)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def once_each(reasons: Sequence[Reason]) -> list[tuple[Reason, int]]:
    """Reasons in the order of time; one that came several times stands where it came last, with how often it came."""
    newest: dict[object, tuple[Reason, int]] = {}
    for position, reason in enumerate(sorted(reasons, key=_when)):
        key = position if reason.code == _OUTPUT else reason.text
        newest[key] = reason, newest.get(key, (reason, 0))[1] + 1
    return sorted(newest.values(), key=lambda found: _when(found[0]))


def _when(reason: Reason) -> float:
    return reason.at or math.inf


def alerts(cli: Cli, values: Namespace) -> int:
    raised = cli.system.alerts()
    if not cli.out.result(raised):
        rows = [(each.severity, each.rule, each.about, each.text, text.ago(each.since)) for each in raised]
        cli.out.table(("SEVERITY", "RULE", "ABOUT", "WHAT", "SINCE"), rows, "no alert is raised")
    return 0
