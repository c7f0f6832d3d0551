"""Whether groups of people fare alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rates:
    """Of one group: how many items, what share is selected, and of those that should be and should not be; None where
    there are none."""

    items: int
    selected: float
    true_positive: float | None
    false_positive: float | None


@dataclass(frozen=True)
class Fairness:
    """The rates of each group, and by how much the highest is above the lowest.

    `demographic_parity` compares what is selected, `equal_opportunity` what is selected of those that should be
    (Hardt et al. 2016), `equal_odds` the larger of that and the same of those that should not be; None where fewer than
    two groups have such items. 0 is alike.
    """

    groups: Mapping[str, Rates]
    demographic_parity: float | None
    equal_opportunity: float | None
    equal_odds: float | None


def fairness(said: Tensor, wanted: Tensor, groups: Sequence[str]) -> Fairness:
    """Compare groups.

    Args:
        said: bool [items], which are selected.
        wanted: bool [items], which should be.
        groups: of which group each item is.

    Raises:
        ValueError: numbers of items differ.
    """
    from torchmetrics.functional.classification import binary_groups_stat_rates

    if not len(said) == len(wanted) == len(groups):
        raise ValueError(f"{len(said)} are said, {len(wanted)} wanted, of {len(groups)} the group is known")
    names = sorted(set(groups))
    numbers = torch.tensor([names.index(group) for group in groups])
    shares = binary_groups_stat_rates(said.int(), wanted.int(), numbers, len(names))
    rates = {
        name: _rates(groups.count(name), *(float(share) for share in shares[f"group_{number}"]))
        for number, name in enumerate(names)
    }
    selected, right, wrong = (
        _apart([getattr(each, field) for each in rates.values()])
        for field in ("selected", "true_positive", "false_positive")
    )
    return Fairness(rates, selected, right, None if right is None or wrong is None else max(right, wrong))


def _rates(items: int, right: float, wrong: float, rejected: float, missed: float) -> Rates:
    """From the shares of a group that are true positive, false positive, true negative and false negative."""
    positive, negative = right + missed, wrong + rejected
    return Rates(
        items, right + wrong, right / positive if positive else None, wrong / negative if negative else None
    )


def _apart(rates: Sequence[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return max(known) - min(known) if len(known) > 1 else None
