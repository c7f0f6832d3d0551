"""Figures of written texts (`texts.written`) for many draws of rows at once: each is made of sums over rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from .texts import written

LONGEST = 4
"""Words of the longest runs that BLEU compares."""
_ROUGE = ("rouge1", "rouge2", "rougel")


def parts(said: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """float64 [rows, 13]: what the figures of any rows are made of. For runs of one to four words how many of those
    that are said are wanted, and how many are said; words said and wanted; the F1 of ROUGE-1, -2 and -L.

    Raises:
        ValueError: there are different numbers of texts.
    """
    rows = [_row(one, other) for one, other in zip(said, wanted, strict=True)]
    return torch.tensor(rows, dtype=torch.float64).view(-1, 2 * LONGEST + 2 + len(_ROUGE))


def figures(of: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """`bleu`, `rouge1`, `rouge2` and `rougel`, 0 to 1, once for each draw.

    Args:
        of: float64 [rows, 13], as `parts` makes it; at least one row.
        counts: float64 [draws, rows], how often each row is in each draw.

    Returns:
        float64 [draws] each.
    """
    sums = counts @ of
    right, told = sums[:, :LONGEST], sums[:, LONGEST : 2 * LONGEST]
    words, wanted = sums[:, 2 * LONGEST], sums[:, 2 * LONGEST + 1]
    mean = (right / told.clamp(min=1)).log().mean(1).exp()  # 0 where no run of some length is right
    short = torch.where(words > wanted, 1.0, (1 - wanted / words.clamp(min=1)).exp())
    means = sums[:, 2 * LONGEST + 2 :] / counts.sum(1, keepdim=True)
    return {"bleu": mean * short, **dict(zip(_ROUGE, means.unbind(1), strict=True))}


def _row(said: str, wanted: str) -> list[float]:
    one, other = said.split(), wanted.split()
    both = [(_runs(one, size), _runs(other, size)) for size in range(1, LONGEST + 1)]
    right = [(mine & theirs).total() for mine, theirs in both]
    rouge = written([said], [wanted])
    return [*right, *(mine.total() for mine, _ in both), len(one), len(other), *(rouge[name] for name in _ROUGE)]


def _runs(words: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[n : n + size]) for n in range(len(words) - size + 1))
