"""What is left out of the data, and how long what stays is: counted, so that it can be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .example import Example


class Cleaning:
    """Rows that go and why, counted. `dedupe`: of rows that say the same, the first stays."""

    def __init__(self, dedupe: bool) -> None:
        self._dedupe = dedupe
        self._seen: set[bytes] = set()
        self.counts: Counter[str] = Counter(rows=0, duplicates=0, augmented=0, dropped=0, cut=0, split=0)

    def keeps(self, digest: bytes) -> bool:
        """Whether a row that says this is kept; it is counted."""
        self.counts["rows"] += 1
        if self._dedupe and digest in self._seen:
            self.counts["duplicates"] += 1
            return False
        self._seen.add(digest)
        return True


def lengths_of(examples: Sequence[Example]) -> dict[str, Any]:
    """Tokens, how many of them are learned, and the spread of the examples' lengths; empty without examples."""
    if not examples:
        return {}
    sizes = sorted(len(example) for example in examples)
    share = {f"p{part}": sizes[min(len(sizes) - 1, len(sizes) * part // 100)] for part in (50, 95, 99)}
    return {
        "examples": len(sizes), "tokens": sum(sizes), "learned": sum(example.learned for example in examples),
        "shortest": sizes[0], **share, "longest": sizes[-1], "mean": round(sum(sizes) / len(sizes), 1),
    }  # fmt: skip
