"""Random numbers that are a function of where they are used, not of what was drawn before.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3; 2011). A token's number depends
on the seed, the choice and the position alone: no batch, preemption or chunking can change it.
"""

from __future__ import annotations

from enum import IntEnum

Words = tuple[int, int, int, int]

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF


class Stream(IntEnum):
    """What a number is for; uses at the same position are independent of each other."""

    TOKEN = 0
    DRAFT = 1
    ACCEPT = 2


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four words of 32 bits for a counter of four and a key of two."""
    a, b, c, d = counter
    low, high = key
    for _ in range(ROUNDS):
        left, right = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = (right >> 32) ^ b ^ low, right & MASK, (left >> 32) ^ d ^ high, left & MASK
        low, high = (low + WEYL[0]) & MASK, (high + WEYL[1]) & MASK
    return a, b, c, d


def uniform(seed: int, choice: int, position: int, stream: Stream = Stream.TOKEN) -> float:
    """A number in [0, 1) with 53 random bits. `seed` below 2**64, `choice` and `position` below 2**32."""
    high, low, _, _ = philox((position & MASK, choice & MASK, int(stream), 0), (seed & MASK, seed >> 32 & MASK))
    return ((high >> 5) * (1 << 26) + (low >> 6)) * 2.0**-53
