"""Which tokens of a step belong to which adapter.

Adapters of a base have slots. A bank holds `BANK_SLOTS` of them, which have the same rank and lie in one stack; rows
are sorted by slot, so that neighbours in a step are neighbours in their bank, and few products serve them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

import torch

from ...ops.reference_lora import LAST, Segment, Segments, Slots, Where, segments_of
from ..steps import RowStep, StepPlan

BANK_SLOTS = 8
BASE = -1
"""The slot of rows without an adapter."""

ANY = -1


class Group(NamedTuple):
    """Tokens `start` to `end` of a step go through the adapter in `slot`."""

    slot: int
    start: int
    end: int


@dataclass(frozen=True)
class Layout:
    """The groups of so many tokens (`ANY`: of however many come), and which tokens take part in each bank."""

    tokens: int
    groups: tuple[Group, ...] = ()
    banks: tuple[tuple[int, Where], ...] = ()


NOTHING = Layout(ANY)


class Misplaced(RuntimeError):
    """A target was called with other tokens than those of the step."""


def sorted_by_adapter(plan: StepPlan) -> StepPlan:
    """The plan with the rows of one adapter next to each other, those of the base first; otherwise as they were."""
    if all(step.row.adapter == BASE for step in plan.rows):
        return plan
    return replace(plan, rows=sorted(plan.rows, key=lambda step: step.row.adapter))


def grouped(rows: Iterable[RowStep], count: Callable[[RowStep], int]) -> tuple[int, tuple[Group, ...]]:
    """How many tokens sorted rows have, of each as many as `count` says, and the groups of adapters among them."""
    groups, end = [], 0
    for slot, steps in groupby(rows, key=lambda step: step.row.adapter):
        start, end = end, end + sum(map(count, steps))
        if slot != BASE and end > start:
            groups.append(Group(slot, start, end))
    return end, tuple(groups)


def by_bank(groups: Sequence[Group], device: torch.device | None = None) -> tuple[tuple[int, Segments], ...]:
    """The segments of each bank that takes part, of groups in ascending order of slot."""
    found = []
    for bank, own in groupby(groups, key=lambda group: group.slot // BANK_SLOTS):
        segments = [Segment(group.slot % BANK_SLOTS, group.start, group.end) for group in own]
        found.append((bank, segments_of(segments, device)))
    return tuple(found)


@dataclass
class AdapterStep:
    """Which adapters take part in the step under way: set before the module runs, read by all its targets.

    Layers see all tokens of a step, the last one often only those whose logits are wanted. `number` counts steps.
    """

    device: torch.device | None = None
    number: int = 0
    active: bool = False
    packed: Layout = NOTHING
    kept: Layout = NOTHING
    _made: dict[str, Layout] = field(default_factory=dict)

    def clear(self) -> None:
        """The bare base."""
        self.number += 1
        self.active = False

    def set_whole(self, slot: int) -> None:
        """One adapter for all tokens, whatever their order."""
        self.set_layouts(Layout(ANY, (Group(slot, 0, LAST),)), NOTHING)

    def set_rows(self, rows: Sequence[RowStep]) -> None:
        """Rows sorted by adapter, packed one after the other."""
        if all(step.row.adapter == BASE for step in rows):
            self.clear()
            return
        packed, kept = (Layout(*grouped(rows, count)) for count in (_tokens, _logits))
        self.set_layouts(packed, kept)

    def set_slots(self, ids: torch.Tensor, banks: int) -> None:
        """Rows of one token each, whose slots are what `ids` [T] int32 holds when they are read; any of so many banks
        may take part."""
        self.number += 1
        self.active = True
        parts = tuple((bank, Slots(ids, bank * BANK_SLOTS)) for bank in range(banks))
        self.packed, self.kept = Layout(ids.shape[0], (), parts), NOTHING

    def set_layouts(self, packed: Layout, kept: Layout) -> None:
        """Layouts of groups alone."""
        self.number += 1
        self.active = True
        self.packed, self.kept = self._complete("packed", packed), self._complete("kept", kept)

    def layout(self, tokens: int) -> Layout:
        """The layout of a target's tokens. Raises Misplaced."""
        if self.packed.tokens in (ANY, tokens):
            return self.packed
        if self.kept.tokens == tokens:
            return self.kept
        raise Misplaced(f"a layer with an adapter was given {tokens} tokens in a step of {self.packed.tokens}")

    def _complete(self, name: str, layout: Layout) -> Layout:
        """Steps that follow each other mostly have the same groups."""
        before = self._made.get(name)
        if before is None or (before.tokens, before.groups) != (layout.tokens, layout.groups):
            before = self._made[name] = Layout(layout.tokens, layout.groups, by_bank(layout.groups, self.device))
        return before


def _tokens(step: RowStep) -> int:
    return step.count


def _logits(step: RowStep) -> int:
    return step.logits
