"""Eviction by value: the models whose absence costs least for the room they give leave first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .residence import SECOND, Candidate, enough


@dataclass(frozen=True, slots=True)
class ByValue:
    """Least expected reload seconds in a second of absence, for each byte that comes free.

    Whoever turns out not to be needed for the room stays: the order is by value for a byte, and a small model that
    came first may be of no use beside a large one that followed.

    Source: the ratio is that of GreedyDual-Size-Frequency (Cherkasova, 1998) with a rate in the place of its ageing
    count.
    """

    name = "value"
    rule = "least expected reload seconds for a byte first"

    def surplus(self, view: Sequence[Candidate]) -> int:
        return 0

    def victims(self, view: Sequence[Candidate], needed: int, now: int) -> list[Candidate]:
        return needed_of(sorted(view, key=lambda each: (_value(each), each.used, each.model)), needed)

    def numbers(self, candidate: Candidate, now: int) -> dict[str, float]:
        return {
            "reload_s": candidate.reload_s,
            "uses_per_hour": candidate.rate * 3600,
            "idle_s": (now - candidate.used) / SECOND,
        }


def needed_of(ordered: Sequence[Candidate], needed: int) -> list[Candidate]:
    """The first of them that free so many bytes together, without those that the others make superfluous."""
    taken = enough(ordered, needed)
    over = sum(each.bytes for each in taken) - needed
    kept = set()
    for each in reversed(taken):
        if each.bytes <= over:
            over -= each.bytes
            kept.add(each.model)
    return [each for each in taken if each.model not in kept]


def _value(candidate: Candidate) -> float:
    return candidate.rate * candidate.reload_s / candidate.bytes
