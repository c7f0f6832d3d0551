"""Which tokens of a step belong to which adapter.

Adapters of a base have slots. A bank holds `BANK_SLOTS` of them, which have the same rank and lie in one stack; rows
are sorted by slot, so that neighbours in a step are neighbours in their bank and one product serves them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

import torch

from ...ops.reference_lora import LoraRun
from ..steps import RowStep, StepPlan

BANK_SLOTS = 8
BASE = -1
"""The slot of rows without an adapter."""

BATCHED_TOKENS = 16
"""A group with more tokens is a matrix product of its own; filling the others up to its length would cost more."""

ANY = -1


class Group(NamedTuple):
    """Tokens `start` to `end` of a step (to the last when `end` is None) go through the adapter in `slot`."""

    slot: int
    start: int
    end: int | None


class BankRun(NamedTuple):
    """A run in one bank."""

    bank: int
    run: LoraRun


@dataclass(frozen=True)
class Layout:
    """The groups of so many tokens (`ANY`: of however many come), and the runs that serve them."""

    tokens: int
    groups: tuple[Group, ...] = ()
    runs: tuple[BankRun, ...] = ()


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


def runs_of(groups: Sequence[Group], device: torch.device | None = None) -> tuple[BankRun, ...]:
    """The products that serve groups in ascending order of slot."""
    found: list[list[Group]] = []
    for group in groups:
        if found and _joins(found[-1][-1], group):
            found[-1].append(group)
        else:
            found.append([group])
    return tuple(BankRun(run[0].slot // BANK_SLOTS, _run(run, device)) for run in found)


def _joins(before: Group, group: Group) -> bool:
    """Whether a group is served by the same product as the one before."""
    adjacent = group.slot == before.slot + 1 and group.slot % BANK_SLOTS and group.start == before.end
    return bool(adjacent) and _size(before) <= BATCHED_TOKENS and _size(group) <= BATCHED_TOKENS


def _size(group: Group) -> int:
    return BATCHED_TOKENS + 1 if group.end is None else group.end - group.start


def _run(groups: Sequence[Group], device: torch.device | None) -> LoraRun:
    start, end, first = groups[0].start, groups[-1].end, groups[0].slot % BANK_SLOTS
    sizes = [_size(group) for group in groups]
    width = max(sizes)
    if len(sizes) == 1 or min(sizes) == width:
        return LoraRun(start, end, first, len(sizes))
    spread: list[int] = []
    packed: list[int] = []
    for at, group in enumerate(groups):
        own = range(group.start - start, group.start - start + sizes[at])
        spread += [*own, *[own[0]] * (width - len(own))]
        packed += range(at * width, at * width + len(own))
    return LoraRun(
        start, end, first, len(sizes), torch.tensor(spread, device=device), torch.tensor(packed, device=device)
    )


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
        self.set_layouts(Layout(ANY, (Group(slot, 0, None),)), NOTHING)

    def set_rows(self, rows: Sequence[RowStep]) -> None:
        """Rows sorted by adapter, packed one after the other."""
        if all(step.row.adapter == BASE for step in rows):
            self.clear()
            return
        packed, kept = (Layout(*grouped(rows, count)) for count in (_tokens, _logits))
        self.set_layouts(packed, kept)

    def set_layouts(self, packed: Layout, kept: Layout) -> None:
        """Layouts without runs yet."""
        self.number += 1
        self.active = True
        self.packed, self.kept = self._with_runs("packed", packed), self._with_runs("kept", kept)

    def layout(self, tokens: int) -> Layout:
        """The layout of a target's tokens. Raises Misplaced."""
        if self.packed.tokens in (ANY, tokens):
            return self.packed
        if self.kept.tokens == tokens:
            return self.kept
        raise Misplaced(f"a layer with an adapter was given {tokens} tokens in a step of {self.packed.tokens}")

    def _with_runs(self, name: str, layout: Layout) -> Layout:
        """Steps that follow each other mostly have the same groups."""
        before = self._made.get(name)
        if before is None or (before.tokens, before.groups) != (layout.tokens, layout.groups):
            before = self._made[name] = Layout(layout.tokens, layout.groups, runs_of(layout.groups, self.device))
        return before


def _tokens(step: RowStep) -> int:
    return step.count


def _logits(step: RowStep) -> int:
    return step.logits
