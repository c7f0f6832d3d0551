"""How much of a figure is chance: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Statistic = Callable[..., float]


@dataclass(frozen=True)
class Interval:
    """A figure, and from where to where it reaches in `share` of the samples."""

    value: float
    low: float
    high: float
    share: float


def mean(values: Tensor) -> float:
    return float(values.double().mean())


def bootstrap(*values: Tensor, statistic: Statistic = mean, rows: Tensor | None = None, samples: int = 1000,
              share: float = 0.95, seed: int = 0) -> Interval:  # fmt: skip
    """The percentile interval of a figure (Efron 1979): the same for the same values and seed.

    Args:
        values: what the figure is made of, each with the same first dimension [items, ...].
        statistic: the figure; gets `values` of the items that were drawn.
        rows: int64 [items], what row of the data each item is of: rows are drawn whole, as the tokens of one text do
            not vary on their own. Each item is a row of its own where it is None.
        samples: how often as many rows as there are are drawn, with repetition.
        share: of the samples that the interval holds, above 0 and below 1.
        seed: of the draws.

    Raises:
        ValueError: there are no items, or first dimensions that differ.
    """
    count = len(values[0])
    if not count or any(len(each) != count for each in values):
        raise ValueError(f"the values have {', '.join(str(len(each)) for each in values)} items")
    generator = torch.Generator().manual_seed(seed)
    members = None if rows is None else _members(rows)
    drawn = []
    for _ in range(samples):
        if members is None:
            places = torch.randint(count, (count,), generator=generator)
        else:
            chosen = torch.randint(len(members), (len(members),), generator=generator)
            places = torch.cat([members[number] for number in chosen.tolist()])
        drawn.append(statistic(*(each[places] for each in values)))
    rest = (1 - share) / 2
    low, high = torch.tensor(drawn, dtype=torch.float64).quantile(torch.tensor([rest, 1 - rest], dtype=torch.float64))
    return Interval(statistic(*values), float(low), float(high), share)


def _members(rows: Tensor) -> tuple[Tensor, ...]:
    """The places of the items of each row."""
    _, counts = torch.unique(rows, return_counts=True)
    return torch.split(torch.argsort(rows, stable=True), counts.tolist())
