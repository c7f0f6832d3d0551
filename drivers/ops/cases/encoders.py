"""Cases of the ops of encoders, attention within packed rows and pooling, and of `replay`, which carries others out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch

from ..replay import Inputs
from .case import Call, Case, Draws


def packed(rows: Sequence[int], heads: int, kv_heads: int, dim: int, value_dim: int, seed: int = 0) -> Case:
    """Rows of these lengths."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws, tokens = Draws(seed, device, dtype), sum(rows)
        q, k = draws.normal(tokens, heads, dim), draws.normal(tokens, kv_heads, dim)
        starts = draws.tensor([0, *accumulate(rows)], torch.int32)
        return Call((q, k, draws.normal(tokens, kv_heads, value_dim), starts, dim**-0.5))

    name = f"rows {', '.join(map(str, rows))}; heads {heads}/{kv_heads} of {dim}/{value_dim}"
    return Case("packed_attention", name, {"key_width": dim, "value_width": value_dim}, make)


def pooled(rows: Sequence[int], width: int, how: str, left: bool = False, seed: int = 0) -> Case:
    """Rows of these lengths, padded at the end or, `left`, at the front."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws, longest = Draws(seed, device, dtype), max(rows)
        pads = [[0] * (longest - length) for length in rows]
        ones = [[1] * length for length in rows]
        mask = [[*pad, *one] if left else [*one, *pad] for pad, one in zip(pads, ones, strict=True)]
        return Call((draws.normal(len(rows), longest, width), draws.tensor(mask, torch.int64), how))

    return Case("pool_states", f"{how} of {rows}{' from the left' if left else ''}", {}, make)


def replayed(implementation: Callable[..., Any], call: Call) -> Any:
    """A function that was not seen before, which is simply run."""
    (x,) = call.args
    return implementation()(x, Inputs([x]), None, lambda: x + x)


def _replay() -> Case:
    def make(device: torch.device, dtype: torch.dtype) -> Call:
        return Call((Draws(0, device, dtype).normal(1, 3, 8),))

    return Case("replay", "a function without a variant", {}, make, run=replayed)


def cases(tiny: bool) -> Iterator[Case]:
    yield _replay()
    for how in ("mean", "cls", "last"):
        yield pooled([1, 4, 7], 16, how)
        yield pooled([1, 4, 7], 16, how, left=True)
    yield packed([1], 2, 2, 16, 16)
    yield packed([3, 17, 1], 4, 2, 16, 16)
    yield packed([9, 2], 4, 4, 8, 24)
    if not tiny:
        yield packed([512, 33, 128, 7], 12, 12, 64, 64)
