"""Old rows among new ones, so that what was learned before is not forgotten."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from typing import TypeVar

from . import packing

T = TypeVar("T")


def kept(digests: Iterable[bytes], room: int, seed: int = 0) -> frozenset[bytes]:
    """Which rows a buffer keeps of all that ever passed: each subset of `room` rows is as likely as any other.

    The order of rows means nothing, and what is kept of two buffers together is what is kept of all their rows: so a
    buffer of one run and the rows of the next make the buffer of the one after.

    Args:
        digests: of the rows (`splits.digest_of`); equal ones are one row.
        room: how many are kept.
        seed: of chance.
    """
    key = str(seed).encode()
    return frozenset(heapq.nsmallest(
        room, set(digests), key=lambda digest: hashlib.blake2b(digest, key=key, digest_size=16).digest()
    ))  # fmt: skip


def mixed(new: Sequence[T], old: Sequence[T], share: float, seed: int = 0) -> list[T]:
    """New rows and old ones, which are `share` of all: drawn without repetition as long as there are others.

    Args:
        new: all of them are taken, first.
        old: what the buffer holds.
        share: of old rows, 0 to below 1; none where there are no old ones.
        seed: of the draw.
    """
    count = round(len(new) * share / (1 - share)) if old else 0
    rounds = range(-(-count // max(1, len(old))))
    drawn = [number for lap in rounds for number in packing.order(len(old), seed, lap)]
    return [*new, *(old[number] for number in drawn[:count])]
