"""Layers that adapters change: the layer itself, and beside it the stacked matrices of its adapters.

Siblings that read the same input (query, key and value; gate and up) share one product with their first matrices, as
long as they are called with the very same input; each computes its own when it is called with anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ...ops.reference_lora import Slice, Where
from .layout import AdapterStep
from .weights import LoraPair

Shrink = Callable[..., Tensor]
Expand = Callable[..., None]


@dataclass(frozen=True)
class Part:
    """One member of a bank: its columns in the common hidden [T, R], and its second matrices [places, r, N], a view of
    those of all members side by side."""

    start: int
    end: int
    b: Tensor


class Bank:
    """The matrices of up to `BANK_SLOTS` adapters of one rank, in one stack for each side.

    `pairs` holds, for each place that is taken, the pairs of the members that its adapter changes, as views.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.pairs: dict[int, Mapping[int, LoraPair]] = {}
        self.parts: dict[int, Part] = {}
        self.a = self.b = torch.empty(0)

    def set(self, place: int, pairs: Mapping[int, LoraPair], places: int) -> None:
        """Fill a place, or empty it, and stack so many places again where that changes anything.

        An adapter of the bank that changes no member here has a place of zeros all the same.
        """
        if not pairs and place not in self.pairs and self.a.shape[0] == places:
            return
        kept = {**self.pairs, place: pairs}
        filled = {at: kept[at] for at in sorted(kept) if kept[at]}
        found = {member: pair for each in filled.values() for member, pair in each.items()}
        if not found:
            self.pairs, self.parts = {}, {}
            self.a = self.b = torch.empty(0)
            return
        members, rank = sorted(found), self.rank
        like = found[members[0]].a
        self.a = like.new_zeros(places, len(members) * rank, like.shape[1])
        widths = [found[member].b.shape[0] for member in members]
        self.b = like.new_zeros(places, rank, sum(widths))
        self.parts = {
            member: Part(at * rank, (at + 1) * rank, b)
            for at, (member, b) in enumerate(zip(members, torch.split(self.b, widths, dim=2), strict=True))
        }
        self.pairs = {
            at: {member: self._place(at, member, pair) for member, pair in each.items()} for at, each in filled.items()
        }

    def _place(self, place: int, member: int, pair: LoraPair) -> LoraPair:
        part, rank = self.parts[member], pair.a.shape[0]
        a = self.a[place, part.start : part.start + rank]
        b = part.b[place, :rank].t()
        return LoraPair(a.copy_(pair.a), b.copy_(pair.b))

    def stacked_bytes(self) -> int:
        """Bytes of the stacks, with places and ranks that are not used."""
        return self.a.nbytes + self.b.nbytes


class SharedInput:
    """The members of a group of siblings, and the products of the last input that not all of them have added."""

    def __init__(self, step: AdapterStep, shrink: Shrink, expand: Expand) -> None:
        self.step = step
        self.banks: dict[int, Bank] = {}
        self.members = 0
        """How many ask for each input."""
        self._shrink, self._expand = shrink, expand
        self._input: Tensor | None = None
        self._number = self._left = 0
        self._products: list[tuple[Bank, Where, Tensor]] = []

    def add(self, member: int, x: Tensor, y: Tensor) -> None:
        """Add what adapters make of x [.., K] to a member's output y [.., N], in place."""
        flat = y.view(-1, y.shape[-1])
        for bank, where, hidden in self._hidden(x, 1):
            part = bank.parts.get(member)
            if part is not None:
                self._expand(flat, hidden[:, part.start : part.end], part.b, where)

    def add_whole(self, slices: Sequence[Slice], x: Tensor, y: Tensor) -> None:
        """Add what adapters make of x [.., K] to the outputs y [.., sum of N] of all members, each in its slice."""
        flat = y.view(-1, y.shape[-1])
        for bank, where, hidden in self._hidden(x, len(slices)):
            self._expand(flat, hidden, bank.b, where, [slices[member] for member in bank.parts])

    def _hidden(self, x: Tensor, asking: int) -> Sequence[tuple[Bank, Where, Tensor]]:
        """What the adapters' first matrices make of x, kept until all members have asked."""
        if x is not self._input or self._number != self.step.number:
            flat = x.reshape(-1, x.shape[-1])
            banks = self.step.layout(flat.shape[0]).banks
            found = ((self.banks[number], where) for number, where in banks if number in self.banks)
            self._products = [(bank, where, self._shrink(flat, bank.a, where)) for bank, where in found]
            self._input, self._number, self._left = x, self.step.number, self.members
        self._left -= asking
        products = self._products
        if self._left == 0:
            self._input, self._products = None, []
        return products


class LoraTarget(nn.Module):
    """A layer from [.., K] to [.., N] of any kind, with adapters. Whatever else is asked of it is the layer's."""

    def __init__(self, base: nn.Module, shared: SharedInput, member: int) -> None:
        super().__init__()
        self.base = base
        self._shared = shared
        self._step = shared.step
        self._member = member

    def forward(self, x: Tensor) -> Tensor:
        """The layer's answer, and in place what the adapters of the step add to it."""
        y: Tensor = self.base(x)
        if self._step.active:
            self._shared.add(self._member, x, y)
        return y

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base":
                raise
            return getattr(self.base, name)


class MergedTarget(LoraTarget):
    """A target whose layer is one of several in a product that may be asked for as a whole.

    `widths` are those of all parts of the product, which are the members of the shared input.
    """

    def __init__(self, base: Any, shared: SharedInput, member: int, widths: Sequence[int]) -> None:
        super().__init__(base, shared, member)
        ends = list(accumulate(widths))
        self._slices = [(end - width, width) for end, width in zip(ends, widths, strict=True)]

    def whole(self, x: Tensor) -> Tensor:
        """The whole product [.., sum of N] with the adapters of all its parts."""
        base: Any = self.base
        y: Tensor = base.whole(x)
        if self._step.active:
            self._shared.add_whole(self._slices, x, y)
        return y
