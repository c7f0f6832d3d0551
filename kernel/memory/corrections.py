"""What plans were wrong by: a model that ran out of memory once is planned larger the next time. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from llmos.syscalls.types import LedgerRow, Reason

from ..ledger import size_text

MOST = 1000
"""Recipes that are remembered; what was learned longest ago is forgotten first."""


@dataclass(slots=True)
class _Known:
    """By use: what plans are larger by, and what of it the newest load was planned with already."""

    extra: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)


class Corrections:
    """Bytes by which plans were too small, by recipe (what is loaded, and how) and use."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[Hashable, _Known] = OrderedDict()

    def learn(self, recipe: Hashable, what: str, planned: int, measured: int) -> int:
        """More was used than the driver had planned, which knows of no corrections; by how much the next plan is larger
        than the driver's, 0 when nothing was missing.

        Many requests may run out of memory at once, for want of the same bytes: those of one load count once.
        """
        missing = max(0, measured - planned)
        if not missing:
            return 0
        known = self._known.setdefault(recipe, _Known())
        more = max(known.extra.get(what, 0), known.counted.get(what, 0) + missing)
        known.extra[what] = more
        self._known.move_to_end(recipe)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return more

    def loaded(self, recipe: Hashable) -> None:
        """A model got the room of a plan with all that is known: what is missing even then comes on top of it."""
        known = self._known.get(recipe)
        if known is not None:
            known.counted = dict(known.extra)

    def apply(self, recipe: Hashable, rows: Sequence[LedgerRow]) -> tuple[list[LedgerRow], list[Reason]]:
        """Rows of a plan with what is known to be missing, and why they are larger."""
        known = self._known.get(recipe)
        uses = known.extra if known is not None else {}
        grown, reasons, places = list(rows), [], {row.what: place for place, row in enumerate(rows)}
        for what, extra in uses.items():
            if what in places:
                row = grown[places[what]]
                grown[places[what]] = replace(row, predicted=row.predicted + extra)
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
