"""What plans were wrong by: a model that ran out of memory once is planned larger the next time. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

from msgspec.structs import replace

from llmos.syscalls.types import LedgerRow, Reason

from ..ledger import size_text

MOST = 1000
"""Recipes that are remembered; what was learned longest ago is forgotten first."""


class Corrections:
    """Bytes by which plans were too small, by recipe (what is loaded, and how) and use."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._extra: OrderedDict[Hashable, dict[str, int]] = OrderedDict()

    def learn(self, recipe: Hashable, what: str, planned: int, measured: int) -> int:
        """More was used than the plan said, earlier corrections included: plans grow by the difference, which is
        returned; 0 when there is none."""
        missing = max(0, measured - planned)
        if missing:
            uses = self._extra.setdefault(recipe, {})
            uses[what] = uses.get(what, 0) + missing
            self._extra.move_to_end(recipe)
            if len(self._extra) > self._most:
                self._extra.popitem(last=False)
        return missing

    def apply(self, recipe: Hashable, rows: Sequence[LedgerRow]) -> tuple[list[LedgerRow], list[Reason]]:
        """Rows of a plan with what is known to be missing, and why they are larger."""
        uses = self._extra.get(recipe, {})
        grown, reasons, known = list(rows), [], {row.what: place for place, row in enumerate(rows)}
        for what, extra in uses.items():
            if what in known:
                row = grown[known[what]]
                grown[known[what]] = replace(row, predicted=row.predicted + extra)
            elif rows:
                grown.append(replace(rows[0], what=what, predicted=extra, allocator=0, driver=0))
            reasons.append(
                Reason(
                    code="plan.corrected",
                    text=f"{what} is planned {size_text(extra)} larger: it ran out of memory before",
                    numbers={"extra": extra},
                )
            )
        return grown, reasons
