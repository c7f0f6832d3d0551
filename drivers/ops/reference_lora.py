"""Plain torch implementations of the two products of low-rank adapters (LoRA, Hu et al. 2021), many adapters at once.

The matrices of adapters are stacked: `a` [S, R, K] and `b` [S, R, N], an adapter in each place. Which token goes
through which is said in one of two ways: `Segments`, for tokens sorted by place, so that each adapter's are one segment
(as in Punica's SGMV, Chen et al. 2023), or `Slots`, by a tensor, so that calls for other tokens differ in nothing but
its values and can be repeated (as in Punica's BGMV).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

BATCHED_TOKENS = 16
"""A longer segment is a matrix product of its own; to fill the others up to its length would cost more."""

LAST = 2**62
"""The end of a segment that takes all tokens, however many come."""


class Segment(NamedTuple):
    """Tokens `start` to `end` go through the adapter in a place of the stack."""

    place: int
    start: int
    end: int

    @property
    def tokens(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Run:
    """Segments whose places are neighbours, to be one batched product.

    `spread` fills the rows of the batch [places * width] with tokens, counted from `start`, where the segments differ
    in length, and `packed` says for each token where it went; else they are None.
    """

    first: int
    places: int
    start: int
    end: int
    spread: Tensor | None
    packed: Tensor | None


@dataclass(frozen=True)
class Segments:
    """All segments of one stack in a step, one after the other without a gap; `table` [segments, 3] holds them too.

    A stack must have so many `places`.
    """

    start: int
    end: int
    places: int
    runs: tuple[Run, ...]
    table: Tensor


@dataclass(frozen=True)
class Slots:
    """Each token's adapter: `ids` [T] int32, on the device of the stack, whose place is the id less `first`.

    Tokens whose place is not in the stack are those of nobody; their hidden is zero.
    """

    ids: Tensor
    first: int = 0

    def own(self, place: int) -> Tensor:
        """Which tokens [T, 1] go through the adapter in a place."""
        return (self.ids == self.first + place)[:, None]


Where = Segments | Slots

Slice = tuple[int, int]
"""The first column and the width of the columns of y that one of several B side by side adds to."""


def segments_of(found: Sequence[Segment], device: torch.device | None = None) -> Segments:
    """Segments in ascending order of place and token."""
    runs: list[list[Segment]] = []
    for segment in found:
        if runs and _joins(runs[-1][-1], segment):
            runs[-1].append(segment)
        else:
            runs.append([segment])
    made = tuple(_run(run, device) for run in runs)
    places = found[-1].place + 1
    return Segments(found[0].start, found[-1].end, places, made, torch.tensor(found, device=device))


def _joins(before: Segment, segment: Segment) -> bool:
    return segment.place == before.place + 1 and max(before.tokens, segment.tokens) <= BATCHED_TOKENS


def _run(run: Sequence[Segment], device: torch.device | None) -> Run:
    start, end = run[0].start, run[-1].end
    width = max(segment.tokens for segment in run)
    if len(run) == 1 or min(segment.tokens for segment in run) == width:
        return Run(run[0].place, len(run), start, end, None, None)
    spread: list[int] = []
    packed: list[int] = []
    for at, segment in enumerate(run):
        own = range(segment.start - start, segment.end - start)
        spread += [*own, *[own[0]] * (width - len(own))]
        packed += range(at * width, at * width + len(own))
    return Run(
        run[0].place, len(run), start, end, torch.tensor(spread, device=device), torch.tensor(packed, device=device)
    )


def lora_shrink(x: Tensor, a: Tensor, where: Where) -> Tensor:
    """x [T, K] times the transposed A of each token's adapter: [tokens of all segments, R], or of slots [T, R]."""
    if isinstance(where, Slots):
        hidden = x.new_zeros(x.shape[0], a.shape[1])
        for place, own in enumerate(a):
            hidden = torch.where(where.own(place), x @ own.t(), hidden)
        return hidden
    found = [_shrunk(x[run.start : run.end], a[run.first : run.first + run.places], run) for run in where.runs]
    return found[0] if len(found) == 1 else torch.cat(found)


def _shrunk(x: Tensor, a: Tensor, run: Run) -> Tensor:
    if run.places == 1:
        return x @ a[0].t()
    if run.spread is not None:
        x = x.index_select(0, run.spread)
    hidden = torch.bmm(x.view(run.places, -1, x.shape[1]), a.transpose(1, 2)).flatten(0, 1)
    return hidden if run.packed is None else hidden.index_select(0, run.packed)


def lora_expand(y: Tensor, hidden: Tensor, b: Tensor, where: Where, slices: Sequence[Slice] = ()) -> None:
    """Add `hidden`, as `lora_shrink` gives it, times the B of each token's adapter to y [T, N], in place.

    With `slices`, `b` holds several matrices side by side, [S, R, sum of widths], one for each slice of y, and `hidden`
    as many times R columns, in the same order.
    """
    for own, part, matrix in sliced(y, hidden, b, slices):
        _added(own, part, matrix, where)


def sliced(y: Tensor, hidden: Tensor, b: Tensor, slices: Sequence[Slice]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The columns of y, hidden and b of each slice."""
    if not slices:
        return [(y, hidden, b)]
    rank = b.shape[1]
    found, column = [], 0
    for number, (start, width) in enumerate(slices):
        part = hidden[:, number * rank : (number + 1) * rank]
        found.append((y[:, start : start + width], part, b[:, :, column : column + width]))
        column += width
    return found


def _added(y: Tensor, hidden: Tensor, b: Tensor, where: Where) -> None:
    if isinstance(where, Slots):
        for place, own in enumerate(b):
            y.copy_(torch.where(where.own(place), torch.addmm(y, hidden, own), y))
        return
    for run in where.runs:
        own = hidden[run.start - where.start : run.end - where.start]
        _expand(y[run.start : run.end], own, b[run.first : run.first + run.places], run)


def _expand(y: Tensor, hidden: Tensor, b: Tensor, run: Run) -> None:
    if run.places == 1:
        y.addmm_(hidden, b[0])
        return
    if run.spread is None or run.packed is None:
        shape = run.places, -1
        y.view(*shape, y.shape[1]).baddbmm_(hidden.view(*shape, hidden.shape[1]), b)
        return
    padded = hidden.index_select(0, run.spread).view(run.places, -1, hidden.shape[1])
    y.add_(torch.bmm(padded, b).flatten(0, 1).index_select(0, run.packed))
