"""Cases of `linear`, which makes a module of frozen weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from .case import Call, Case, Draws


def applied(implementation: Callable[..., Any], call: Call) -> Any:
    """The layer that the op makes, applied to the last argument."""
    weights, bias, x = call.args
    return implementation(weights, bias)(x)


def linear(rows: int, ins: int, outs: Sequence[int], bias: bool, seed: int = 0) -> Case:
    """Layers with `outs` outputs each, merged, on so many rows."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws = Draws(seed, device, dtype)
        weights = [draws.normal(each, ins, scale=ins**-0.5) for each in outs]
        return Call((weights, draws.normal(sum(outs)) if bias else None, draws.normal(rows, ins)))

    name = f"{rows}x{ins} to {'+'.join(map(str, outs))}{' and bias' if bias else ''}"
    return Case("linear", name, {}, make, run=applied)


def cases(tiny: bool) -> Iterator[Case]:
    yield linear(1, 32, [48], bias=False)
    yield linear(5, 40, [24, 8, 8], bias=True)
    if not tiny:
        yield linear(1, 4096, [4096, 1024, 1024], bias=False)
        yield linear(64, 4096, [14336], bias=True)
