"""Random numbers that are a function of where they are used, not of what was drawn before.

A token's number depends on the seed, the choice and the position alone: no batch, preemption or chunking can change it.
"""

from __future__ import annotations

from enum import IntEnum

from ...ops.philox import MASK, philox
from ...ops.reference_sampling import STREAM


class Stream(IntEnum):
    """What a number is for; uses at the same position are independent of each other."""

    TOKEN = 0
    DRAFT = 1
    ACCEPT = 2
    RACE = STREAM


def uniform(seed: int, choice: int, position: int, stream: Stream = Stream.TOKEN) -> float:
    """A number in [0, 1) with 53 random bits. `seed` below 2**64, `choice` and `position` below 2**32."""
    high, low, _, _ = philox((position & MASK, choice & MASK, int(stream), 0), (seed & MASK, seed >> 32 & MASK))
    return ((high >> 5) * (1 << 26) + (low >> 6)) * 2.0**-53
