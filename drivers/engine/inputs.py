"""What a step gives to a module on pages, as plain numbers: they can be placed on a device, or told to other ranks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .gathered import new_tokens
from .steps import PAGE_TOKENS, RowStep, StepPlan

TABLE_PAGES = 16
"""Tables of pages are so many wide, or a multiple: steps that follow each other mostly have tables of one width."""
UNKNOWN = 0
"""Stands for a token that was chosen on the device and has not come back from it."""


@dataclass(frozen=True)
class Cut:
    """Rows, or their pieces, one after the other: where each begins (and the last ends), how many tokens it has, and
    the pages of these, filled up to one width."""

    starts: list[int]
    lengths: list[int]
    table: list[list[int]]


@dataclass(frozen=True)
class StepInputs:
    """Of each token of a step its id, its position and its slot (page * PAGE_TOKENS + offset); `kept` are the indices
    of those whose logits are wanted. `cuts` says what attention reads: by 0 the rows as they are, by a length the
    pieces of rows that are cut where chunks of so many tokens end.
    """

    ids: list[int]
    positions: list[int]
    kept: list[int]
    slots: list[int]
    cuts: Mapping[int, Cut]


@dataclass(frozen=True)
class Prepared:
    """A whole step: copies of pages, which come first, and its inputs."""

    moves: StepPlan
    inputs: StepInputs


def prepare(rows: Sequence[RowStep], chunks: Collection[int] = ()) -> StepInputs:
    """The inputs of some rows, packed one after the other."""
    ids: list[int] = []
    positions: list[int] = []
    kept: list[int] = []
    slots: list[int] = []
    for step in rows:
        end = step.start + step.count
        known = new_tokens(step)
        ids += known if len(known) == step.count else [*known, *[UNKNOWN] * (step.count - len(known))]
        positions.extend(range(step.start, end))
        kept.extend(range(len(ids) - step.logits, len(ids)))
        pages = step.row.pages
        slots += [pages[at // PAGE_TOKENS] * PAGE_TOKENS + at % PAGE_TOKENS for at in range(step.start, end)]
    return StepInputs(ids, positions, kept, slots, {chunk: _cut(rows, chunk) for chunk in (0, *chunks)})


def moves_of(plan: StepPlan) -> StepPlan:
    """A plan's copies of pages alone."""
    return StepPlan(swap_out=plan.swap_out, swap_in=plan.swap_in, copies=plan.copies)


def _cut(rows: Sequence[RowStep], chunk: int) -> Cut:
    """What attention reads when each row is cut into chunks, which are whole pages; 0 for one piece."""
    pieces = [piece for step in rows for piece in _pieces(step, chunk)]
    widest = -(-max(len(pages) for pages, _, _ in pieces) // TABLE_PAGES) * TABLE_PAGES
    starts = [0]
    for _pages, count, _length in pieces:
        starts.append(starts[-1] + count)
    table = [[*pages, *[0] * (widest - len(pages))] for pages, _, _ in pieces]
    return Cut(starts, [length for _, _, length in pieces], table)


def _pieces(step: RowStep, chunk: int) -> Iterator[tuple[Sequence[int], int, int]]:
    """Of each piece: the pages that it sees, how many of its tokens are new, and how many it has."""
    at, end = step.start, step.start + step.count
    while at < end:
        first = at // chunk * chunk if chunk else 0
        last = min(end, first + chunk) if chunk else end
        yield step.row.pages[first // PAGE_TOKENS : (last + PAGE_TOKENS - 1) // PAGE_TOKENS], last - at, last - first
        at = last
