"""What the shell says of a search: the options of `tune` that begin one, and the table of its trials."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmos.syscalls.errors import BadArgument

OPTIONS = ("trials", "parallel", "metric", "sampler", "pruner", "device_seconds", "seconds")
"""Fields of a search that have an option of `tune`."""


def search_of(values: Namespace, file: Mapping[str, Any]) -> dict[str, Any]:
    """The search that a file and the options say; empty for none. Raises BadArgument."""
    made = dict(file)
    made |= {name: given for name in OPTIONS if (given := getattr(values, name)) is not None}
    tried = dict(_dimension(pair) for pair in values.search_over or ())
    if tried:
        made["space"] = {**made.get("space", {}), **tried}
    return made


def _dimension(pair: str) -> tuple[str, Any]:
    """`NAME=LOW..HIGH`, `NAME=LOW..HIGH:log` or `NAME=A,B,C`."""
    name, equals, said = pair.partition("=")
    low, dots, rest = said.partition("..")
    high, colon, how = rest.partition(":")
    if not equals or not name or not said or (colon and how != "log"):
        want = "NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=A,B,C"
        raise BadArgument(f"--search-over {pair}: write {want}", name="search-over", got=pair, want=want)
    if not dots:
        return name, [_value(each) for each in said.split(",")]
    return name, {"low": _value(low), "high": _value(high), **({"log": True} if how else {})}


def _value(given: str) -> Any:
    """Numbers and true or false as what they are, all else as text."""
    try:
        return json.loads(given)
    except ValueError:
        return given


def trials(facts: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[object]]]:
    """The trials of a run as the columns and rows of a table, the best first; no rows where it was no search."""
    found: list[Mapping[str, Any]] = list(facts.get("trials") or ())
    names = sorted({name for trial in found for name in trial["parameters"]})
    ended = [trial for trial in found if trial["state"] in ("complete", "cut")]
    best = facts.get("best")
    found.sort(key=lambda trial: (trial["number"] != best, trial not in ended, trial["number"]))
    rows: list[Sequence[object]] = [
        (
            f"{trial['number']}{' *' if trial['number'] == best else ''}", trial["state"],
            *(_short(trial["parameters"].get(name, "")) for name in names), _short(trial["value"]), trial["steps"],
            f"{trial['seconds']:.1f}", trial.get("error", ""),
        )
        for trial in found
    ]  # fmt: skip
    return ("Trial", "State", *(f">{name}" for name in names), ">Value", ">Steps", ">Seconds", "Error"), rows


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def without_trials(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The other facts of a run."""
    return {name: value for name, value in facts.items() if name not in ("trials", "best")}


def status(told: Mapping[str, Any]) -> Iterator[str]:
    """How far a search is, and the best value so far; nothing of what is none."""
    if "trials" in told:
        yield f"{told.get('trials_done', 0):.0f} of {told['trials']:.0f} trials"
        if "best" in told:
            yield f"best {told['best']:.4g}"
