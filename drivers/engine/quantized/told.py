"""What people are told about a model's quantized weights."""

from __future__ import annotations

from collections import Counter

from torch import nn

from ...ops.linear import DenseLinear
from ...ops.quantized import Scheme
from ...ops.quantized_linear import QuantizedLinear
from .stored import StoredLinear

INPUTS = {"int8": "a8", "float8": "a8", "model": "a16"}


def short(scheme: Scheme, activations: str) -> str:
    """Such as w4a8-g32: bits of weights and inputs, and how many inputs share a scale."""
    kind = "fp8" if scheme.kind == "float" else f"w{scheme.width}"
    return f"{kind}{INPUTS[activations]}{f'-g{scheme.group}' if scheme.group else ''}{'-shift' if scheme.shift else ''}"


def told(module: nn.Module) -> tuple[str, ...]:
    """One line about how a loaded module's weights are kept; none where nothing is quantized."""
    counts: Counter[str] = Counter()
    rest = sum(each.numel() for each in module.parameters())
    for part in module.modules():
        if isinstance(part, QuantizedLinear | StoredLinear):
            counts[short(part.scheme, part.activations)] += part.in_features * part.out_features
        elif isinstance(part, DenseLinear):
            rest += part.in_features * part.out_features
    if not counts:
        return ()
    every = sum(counts.values()) + rest
    kept = [f"{count / every:.0%} {name}" for name, count in counts.most_common()]
    return (f"weights are quantized: {', '.join([*kept, f'{rest / every:.0%} as they were'])}",)
