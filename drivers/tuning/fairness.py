"""How groups of held-out rows fare, for a report: plain data, bounded in groups and classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from .metrics import by_objective, groups
from .metrics.by_objective import Gathered
from .mistakes import cut

GROUPS, CLASSES, LETTERS = 16, 8, 40
OTHERS = "others"


def fairness(before: Gathered, after: Gathered, named: Sequence[str]) -> dict[str, Any]:
    """`each`: how many rows a group has, with accuracy and macro F1; `differences`: for each of the most frequent
    classes, taken as what is selected, by how much the highest group is above the lowest in what is selected
    (demographic parity), in what is of the right ones (equal opportunity), and the larger of that and the same of the
    wrong ones (equal odds); `differences_before` are those of the model that had learned nothing.

    Args:
        before: classes of the held-out rows, as `objective` classification gathers them.
        after: the same of the result.
        named: of which group each held-out row is; beyond `GROUPS` of them, the smallest are `others`.
    """
    kept = {name for name, _ in Counter(named).most_common(GROUPS)}
    of = [cut(named[row], LETTERS) if named[row] in kept else OTHERS for row in after.rows.tolist()]
    return {
        "each": {name: _fares(after, of, name) for name in sorted(set(of))},
        "differences": _differences(after, of), "differences_before": _differences(before, of),
    }  # fmt: skip


def _fares(gathered: Gathered, of: Sequence[str], name: str) -> dict[str, Any]:
    within = torch.tensor([each == name for each in of])
    found = by_objective.figures("classification", Gathered(gathered.said[within], gathered.wanted[within]))
    return {"rows": int(within.sum()), "accuracy": found["accuracy"], "f1_macro": found["f1_macro"]}


def _differences(gathered: Gathered, of: Sequence[str]) -> dict[str, list[float | None]]:
    """Of two classes the second alone: what one gains the other loses."""
    count, said = gathered.said.shape[1], gathered.said.argmax(1)
    frequent = torch.bincount(gathered.wanted, minlength=count).argsort(descending=True, stable=True)
    found: dict[str, list[float | None]] = {}
    for number in [1] if count == 2 else frequent[:CLASSES].tolist():
        rates = groups.fairness(said == number, gathered.wanted == number, of)
        name = str(gathered.names[number]) if number < len(gathered.names) else str(number)
        found[cut(name, LETTERS)] = [rates.demographic_parity, rates.equal_opportunity, rates.equal_odds]
    return found
