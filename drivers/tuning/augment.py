"""More rows out of those that are there: slips of the pen, words that go or change places, words that mean the same."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llmos.syscalls.errors import BadArgument

from .options.augment import Augment
from .recipe import Recipe

_SPACES = re.compile(r"(\s+)")

FIELDS: Mapping[str, tuple[str, ...]] = {
    "label": ("text", "text_pair"), "labels": ("text", "text_pair"), "score": ("text", "text_pair"),
    "triple": ("anchor",), "pair": ("anchor",), "completion": ("prompt",), "answer": ("question",), "tags": ("tokens",),
}  # fmt: skip
"""For each schema the fields that change: what is read, never what is learned, nor what an answer is a part of."""


class Augmenter:
    """Makes changed copies of rows: which ones depends on the recipe, its seed and what the row says alone."""

    def __init__(self, recipe: Recipe, schema: str) -> None:
        """Raises BadArgument when rows of this schema have nothing that could change and still teach the same."""
        self._asked, self._seed, self._fields = recipe.augment, recipe.seed, FIELDS.get(schema, ())
        if self._asked is not None and not self._fields:
            want = f"rows of {', '.join(FIELDS)}"
            said = f"augment has no meaning for rows of {schema}, of which every word is learned; it takes {want}"
            raise BadArgument(said, name="augment", got=schema, want=want)

    def copies(self, record: Mapping[str, Any], digest: bytes) -> Iterator[dict[str, Any]]:
        """Copies that differ from the row and from each other, at most as many as the recipe asks for."""
        if self._asked is None:
            return
        seen = [dict(record)]
        for number in range(self._asked.copies):
            chance = random.Random(f"{self._seed} {digest.hex()} {number}")
            copy = {
                name: self._changed(value, chance) if name in self._fields else value for name, value in record.items()
            }
            if copy not in seen:
                seen.append(copy)
                yield copy

    def _changed(self, value: Any, chance: random.Random) -> Any:
        assert self._asked is not None
        if isinstance(value, list):  # words that have tags stay as many, and where they are
            return [_each([word], self._asked, chance)[0] for word in value]
        return changed(value, self._asked, chance)


def changed(text: str, asked: Augment, chance: random.Random) -> str:
    """One text, changed as asked; never empty."""
    inner = text.strip()
    first = text.index(inner)
    parts = _SPACES.split(inner)
    words, spaces = parts[::2], parts[1::2]
    kept = [n for n in range(len(words)) if chance.random() >= asked.drop_words] or [chance.randrange(len(words))]
    words = [words[n] for n in kept]
    for n in range(len(words) - 1):
        if chance.random() < asked.swap_words:
            words[n], words[n + 1] = words[n + 1], words[n]
    words = _each(words, asked, chance)
    between = ["", *(spaces[n - 1] for n in kept[1:])]
    made = "".join(space + word for space, word in zip(between, words, strict=True))
    return text[:first] + made + text[first + len(inner) :]


def _each(words: Sequence[str], asked: Augment, chance: random.Random) -> list[str]:
    """Words of the same meaning, then slips of the pen."""
    table = dict(asked.synonyms)
    made = []
    for word in words:
        bare = word.strip(string.punctuation)
        others = table.get(bare.lower(), ())
        if others and chance.random() < asked.synonym_share:
            other = chance.choice(others)
            word = word.replace(bare, other.capitalize() if bare[0].isupper() else other, 1)
        if len(word) > 2 and chance.random() < asked.typos:
            word = chance.choice(_SLIPS)(word, chance.randrange(1, len(word) - 1))
        made.append(word)
    return made


def _left_out(word: str, place: int) -> str:
    return word[:place] + word[place + 1 :]


def _doubled(word: str, place: int) -> str:
    return word[: place + 1] + word[place:]


def _swapped(word: str, place: int) -> str:
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


_SLIPS: Sequence[Callable[[str, int], str]] = (_left_out, _doubled, _swapped)
