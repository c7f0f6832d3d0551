"""Random words that are a function of where they are used, not of what was drawn before.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3; 2011), for numbers and for
tensors of them alike: hosts, the reference of `sample` and its kernels draw the same words.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF

Word = TypeVar("Word", int, Tensor)
"""32 bits, as a Python number or as a tensor of int64."""


def philox(counter: tuple[Word, Word, Word, Word], key: tuple[Word, Word]) -> tuple[Word, Word, Word, Word]:
    """Four words of 32 bits for a counter of four and a key of two. Tensors are broadcast against each other."""
    a, b, c, d = counter
    low, high = key
    for _ in range(ROUNDS):
        left, right = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b, c, d = (right >> 32 & MASK) ^ b ^ low, right & MASK, (left >> 32 & MASK) ^ d ^ high, left & MASK
        low, high = (low + WEYL[0]) & MASK, (high + WEYL[1]) & MASK
    return a, b, c, d
