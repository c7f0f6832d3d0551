"""Cases of `quantized_linear`, which makes a module of weights of 4 or 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from ..quantized import QuantizedWeight, Scheme, round_to_nearest
from .case import Call, Case, Draws

SCHEMES = (
    Scheme(4, 32), Scheme(4, 64, shift=True), Scheme(4, 128), Scheme(4, 128, shift=True), Scheme(4, 0),
    Scheme(8, 0), Scheme(8, 32, shift=True), Scheme(8, 128),
)  # fmt: skip
FLOAT = Scheme(8, 0, "float")


def applied(implementation: Callable[..., Any], call: Call) -> Any:
    """The layer that the op makes, applied to the last argument, in whose dtype it computes."""
    weights, bias, activations, x = call.args
    return implementation(weights, bias, x.dtype, activations)(x)


def quantized(
    scheme: Scheme, rows: int, ins: int, outs: Sequence[int], activations: str, bias: bool = False, seed: int = 0
) -> Case:
    """Layers with `outs` outputs each, merged, on so many rows."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws = Draws(seed, torch.device("cpu"), torch.float32)
        weights: list[QuantizedWeight] = [
            round_to_nearest(draws.normal(each, ins, scale=ins**-0.5), scheme).to(device) for each in outs
        ]
        x = draws.normal(rows, ins).to(device, dtype)
        return Call((weights, draws.normal(sum(outs)).to(device, dtype) if bias else None, activations, x))

    kind = f"{scheme.kind}{scheme.width} group {scheme.group}{' shift' if scheme.shift else ''}, {activations}"
    name = f"{rows}x{ins} to {'+'.join(map(str, outs))}{' and bias' if bias else ''}, {kind}"
    return Case("quantized_linear", name, {**asdict(scheme), "activations": activations}, make, run=applied)


def cases(tiny: bool) -> Iterator[Case]:
    for scheme in SCHEMES:
        for activations in ("model", "int8"):
            yield quantized(scheme, 1, 256, [48], activations)
            yield quantized(scheme, 5, 200, [24, 8, 8], activations, bias=True)
    for activations in ("model", "float8"):
        yield quantized(FLOAT, 3, 128, [32, 16], activations, bias=True)
    if not tiny:
        for scheme in (Scheme(4, 128), Scheme(4, 32), Scheme(8, 128), Scheme(8, 0)):
            for activations in ("model", "int8"):
                yield quantized(scheme, 1, 4096, [4096, 1024, 1024], activations)
                yield quantized(scheme, 64, 4096, [14336], activations, bias=True)
        yield quantized(FLOAT, 64, 4096, [4096], "float8")
