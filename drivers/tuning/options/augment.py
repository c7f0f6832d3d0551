"""The option `augment`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmos.syscalls.errors import BadArgument

from ..checked import Checked

FIELDS: Mapping[str, str] = {
    "copies": "changed copies of each row, at least 1", "typos": "share of words", "drop_words": "share of words",
    "swap_words": "share of words", "synonyms": "a map of words to lists of words", "synonym_share": "of those words",
}  # fmt: skip


@dataclass(frozen=True)
class Augment:
    """Changed copies of the rows that are trained on.

    Attributes:
        copies: of each row, at most.
        typos: share of words with a slip of the pen.
        drop_words: share of words that go.
        swap_words: share of words that change places with the next.
        synonyms: words in small letters and what may stand in their place.
        synonym_share: of these words in a text, how many are replaced.
    """

    copies: int = 1
    typos: float = 0.0
    drop_words: float = 0.0
    swap_words: float = 0.0
    synonyms: tuple[tuple[str, tuple[str, ...]], ...] = ()
    synonym_share: float = 0.3

    @classmethod
    def of(cls, options: Checked) -> Augment | None:
        """What the options of a recipe say; None for nothing. Raises BadArgument."""
        if "augment" not in options:
            return None
        given = options.within_map("augment", FIELDS)
        shares = {name: given.share(name, 0.0) for name in ("typos", "drop_words", "swap_words")}
        made = cls(given.whole("copies", 1, 1), **shares, synonyms=given.synonyms("synonyms"),
                   synonym_share=given.within("synonym_share", 0.3, above=0.0))  # fmt: skip
        if not any(shares.values()) and not made.synonyms:
            want = "typos, drop_words, swap_words or synonyms"
            raise BadArgument(f"augment changes nothing; it needs {want}", name="augment", want=want)
        return made
