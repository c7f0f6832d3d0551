"""Which waiting lines share a batch: the pure choice that the forward runner carries out.

Lines of a batch are padded to its longest. The line that waits longest is always part of the next batch, so that
nothing starves, and others of about its length join it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Waiting(Protocol):
    """A line that waits: only lines of an equal group can share a batch."""

    @property
    def length(self) -> int: ...
    @property
    def group(self) -> Hashable: ...


@dataclass(frozen=True)
class BatchLimits:
    """What one batch may hold: lines, tokens with padding, and padding as a share of these.

    A little padding is always allowed: a step costs something beside its tokens.
    """

    lines: int = 64
    tokens: int = 8192
    waste: float = 0.125
    free: int = 64


LIMITS = BatchLimits()


def choose(waiting: Sequence[Waiting], limits: BatchLimits = LIMITS) -> list[int]:
    """Indexes of the lines of the next batch, in the order of their lengths; `waiting` is in the order of turns.

    The first line's group only. Neighbours in length join one by one, the side that adds less padding first, until a
    limit is reached. A first line that alone exceeds the tokens is a batch of its own.
    """
    if not waiting:
        return []
    first = waiting[0]
    order = sorted(
        (index for index, line in enumerate(waiting) if line.group == first.group),
        key=lambda index: (waiting[index].length, index),
    )
    lengths = [waiting[index].length for index in order]
    low = high = order.index(0)
    total = lengths[low]
    while high - low + 1 < limits.lines:
        best = None
        for start, end in ((low - 1, high), (low, high + 1)):
            if start < 0 or end == len(order):
                continue
            real = total + (lengths[start] if start < low else lengths[end])
            padded = (end - start + 1) * lengths[end]
            fits = padded <= limits.tokens and padded - real <= max(limits.waste * padded, limits.free)
            if fits and (best is None or padded - real < best[0]):
                best = padded - real, start, end, real
        if best is None:
            break
        _, low, high, total = best
    return order[low : high + 1]
