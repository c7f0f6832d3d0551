"""Curves of scores: what share is found at which price, and whether what is said with confidence is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """Of one class, from the highest threshold to the lowest.

    `roc`: share of what is not of the class that is selected, and of what is (from 0, 0 to 1, 1); `precision_recall`:
    recall and precision. `average_precision` is the sum of precisions, each times what recall has grown by.
    """

    roc: Points
    precision_recall: Points
    auc: float
    average_precision: float


def curves(scores: Tensor, wanted: Tensor, points: int = 65) -> Curves | None:
    """The curves of one class, with at most so many points each; None where all items are of it, or none is.

    Args:
        scores: [items]; only their order counts.
        wanted: bool [items], which are of the class.
        points: at least 2; the ends stay. Areas are of all points.
    """
    positive, negative = int(wanted.sum()), int((~wanted).sum())
    if not positive or not negative:
        return None
    values, order = scores.sort(descending=True, stable=True)
    last = torch.ones(len(values), dtype=torch.bool)  # of items with one score: no threshold comes between them
    last[:-1] = values[1:] != values[:-1]
    right = wanted[order].double().cumsum(0)[last]
    wrong = (~wanted[order]).double().cumsum(0)[last]
    nothing = torch.zeros(1, dtype=torch.float64)
    found, false = torch.cat([nothing, right / positive]), torch.cat([nothing, wrong / negative])
    precision = right / (right + wrong)
    return Curves(
        _thinned(false, found, points), _thinned(found[1:], precision, points),
        float(torch.trapezoid(found, false)), float((found.diff() * precision).sum()),
    )  # fmt: skip


def _thinned(across: Tensor, up: Tensor, points: int) -> Points:
    """Points about equally far from each other along the curve."""
    if len(across) > points:
        way = torch.cat([across.new_zeros(1), (across.diff().abs() + up.diff().abs()).cumsum(0)])
        wanted = torch.linspace(0, float(way[-1]), points, dtype=torch.float64)
        kept = torch.unique(torch.searchsorted(way, wanted).clamp(max=len(way) - 1))
        kept[-1] = len(way) - 1
        across, up = across[kept], up[kept]
    return list(zip(across.tolist(), up.tolist(), strict=True))


@dataclass(frozen=True)
class Calibration:
    """Items in bins of equal width by how likely the model holds what it says: how many, how likely in the mean, what
    share is right; `error` is the mean difference of these two (expected calibration error, Guo et al. 2017)."""

    bins: Sequence[tuple[int, float, float]]
    error: float


def calibration(scores: Tensor, wanted: Tensor, bins: int = 10) -> Calibration:
    """How far the likeliest classes are as likely as the model holds them; empty bins are left out.

    Args:
        scores: [items, classes], before softmax; at least one item.
        wanted: int64 [items].
        bins: how many.
    """
    likely, said = scores.double().softmax(1).max(1)
    right = (said == wanted).double()
    place = (likely * bins).long().clamp(max=bins - 1)
    made = []
    for number in range(bins):
        within = place == number
        count = int(within.sum())
        if count:
            made.append((count, float(likely[within].mean()), float(right[within].mean())))
    error = sum(count * abs(mean - share) for count, mean, share in made) / len(wanted)
    return Calibration(made, error)
