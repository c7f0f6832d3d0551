"""One encoded row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

IGNORED = -100
"""The label of a token that nothing is learned from, as torch's cross entropy and transformers have it."""


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens and what is learned from them.

    Attributes:
        tokens: ids.
        labels: one for each token, not shifted, IGNORED where nothing is learned; where they are of the `whole` row:
            the number of a class; 0 or 1 for each of several; a score; the first and the last token of an answer.
        whole: whether labels are of the row, not of its tokens.
        others: further texts of the same row: what a text is near to and far from; the answer that was not chosen.
        kinds: for each token which of two texts it is of, where the model tells them apart; else empty.
        aligned: whether each label is said at its own token, the first one's too; else by what comes before it, and
            that of the first is not learned.
    """

    tokens: Sequence[int]
    labels: Sequence[float]
    whole: bool = False
    others: tuple[Example, ...] = ()
    kinds: Sequence[int] = ()
    aligned: bool = False

    @property
    def learned(self) -> int:
        """Tokens whose label counts; none where they are of the row."""
        return 0 if self.whole else sum(label != IGNORED for label in self.labels[0 if self.aligned else 1 :])

    def __len__(self) -> int:
        return len(self.tokens)
