"""The options of a request, checked as they are taken: none unknown, none of another type, none out of range."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmos.syscalls.errors import BadArgument


class Options:
    """`known` names what the task takes. Raises BadArgument for what it does not."""

    def __init__(self, task: str, known: Mapping[str, str], given: Mapping[str, Any]) -> None:
        self._task, self._given = task, given
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                want = ", ".join(known) or "no options"
                hint = f"did you mean {near[0]}?" if near else f"it takes {want}"
                raise BadArgument(f"{task} has no option {name!r}; {hint}", name=name, want=want)

    def __contains__(self, name: str) -> bool:
        return self._given.get(name) is not None

    def flag(self, name: str, default: bool) -> bool:
        value = self._given.get(name, default)
        if not isinstance(value, bool):
            raise self._refused(name, value, "true or false")
        return value

    def whole(self, name: str, default: int, least: int = 0) -> int:
        """An integer of at least `least`."""
        value = self._given.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._refused(name, value, f"an integer of at least {least}")
        return value

    def number(self, name: str, default: float) -> float:
        """A finite number."""
        value = self._given.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self._refused(name, value, "a number")
        return float(value)

    def text(self, name: str, default: str) -> str:
        value = self._given.get(name, default)
        if not isinstance(value, str):
            raise self._refused(name, value, "text")
        return value

    def choice(self, name: str, default: str, among: Sequence[str]) -> str:
        """One of some words."""
        value = self._given.get(name, default)
        if not isinstance(value, str) or value not in among:
            raise self._refused(name, value, ", ".join(among))
        return value

    def texts(self, name: str, default: Sequence[str] | None = None) -> list[str]:
        """A list of texts; without a default it is needed, and neither it nor a text may be empty."""
        value = self._given.get(name, default)
        fits = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
        if not fits or (default is None and not (value and all(value))):
            want = "a list of texts" if default is not None else "a list of at least one text"
            raise self._refused(name, value, want)
        return list(value)

    def _refused(self, name: str, value: object, want: str) -> BadArgument:
        got = repr(value)[:80]
        missing = name not in self._given
        said = f"{self._task} needs the option {name}: {want}" if missing else f"{name} is {got}, expected {want}"
        return BadArgument(said, name=name, got="" if missing else got, want=want)
