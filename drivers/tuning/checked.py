"""Options of a recipe whose numbers have bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..engine.tasks.options import Options


class Checked(Options):
    """Options whose numbers have bounds, too."""

    def within(self, name: str, default: float, *, above: float = -1.0, least: float = 0.0, below: float = math.inf,
               ) -> float:  # fmt: skip
        """A number of at least `least`, more than `above`, less than `below`."""
        value = self.number(name, default)
        if value < least or value <= above or value >= below:
            low = f"above {above:g}" if above >= least else f"of at least {least:g}"
            raise self._refused(name, value, f"a number {low}" + ("" if below == math.inf else f" and below {below:g}"))
        return value

    def share(self, name: str, default: float) -> float:
        """From 0 to below 1."""
        return self.within(name, default, below=1.0)

    def more(self, name: str, default: float) -> float:
        """Above 0."""
        return self.within(name, default, above=0.0)

    def names(self, name: str, default: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """A map of text to text."""
        value = self._given.get(name, default)
        if not isinstance(value, Mapping) or not all(isinstance(each, str) for pair in value.items() for each in pair):
            raise self._refused(name, value, "a map of text to text")
        return tuple(sorted(value.items()))

    def within_map(self, name: str, known: Mapping[str, str]) -> Checked:
        """The options of a map among them."""
        value = self._given.get(name)
        if not isinstance(value, Mapping):
            raise self._refused(name, value, "a map")
        return Checked(name, known, {str(key): each for key, each in value.items()})

    def value(self, name: str) -> Any:
        """What was given, unchecked."""
        return self._given[name]

    def synonyms(self, name: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """A map of words to lists of words, in small letters."""
        value = self._given.get(name, {})
        fits = isinstance(value, Mapping) and all(
            isinstance(word, str) and isinstance(others, list | tuple) and others
            and all(isinstance(other, str) and other for other in others) for word, others in value.items()
        )  # fmt: skip
        if not fits:
            raise self._refused(name, value, "a map of words to lists of words")
        return tuple(sorted((word.lower(), tuple(others)) for word, others in value.items()))

    def seed(self, name: str) -> int:
        """An integer, whatever its sign."""
        return self.whole(name, 0, least=-(2**63))
