"""Linear layers of quantized weights: what the op `quantized_linear` makes.

Its `activations` say what is multiplied: `model`, the inputs as they are; `int8`, inputs that are rounded to 8 bits for
each token and group, so that whole numbers are multiplied (as llama.cpp does); `float8`, inputs that are rounded to
e4m3 for each token. `ReferenceQuantized` is the meaning of each, and serves every case.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument

from .linear import PackedLinear
from .quantized import FLOAT8, FLOAT8_MAX, QuantizedWeight, Scheme, concatenated, grouped

INT8_MAX = 127.0
ACTIVATIONS = ("model", "int8", "float8")
CHUNK_ROWS = 4096
"""Outputs whose weights are unpacked at a time."""


def int8_groups(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Inputs [..., K] rounded for each token and group: whole numbers -127 to 127 [..., groups, group] and scales
    [..., groups], both float32. With m the largest of a group: q = round(x * (127 / m)), half to even, scale m / 127;
    all 0 where m is."""
    parts = grouped(x.float(), group)
    largest = parts.abs().amax(-1)
    inverse = torch.where(largest == 0, 0.0, INT8_MAX / largest)
    return (parts * inverse.unsqueeze(-1)).round(), largest / INT8_MAX


def rounded_inputs(x: Tensor, group: int, activations: str) -> Tensor:
    """What inputs [..., K] are worth after they were rounded as `activations` says, float32."""
    if activations == "int8":
        numbers, scale = int8_groups(x, group)
        return (numbers * scale.unsqueeze(-1)).flatten(-2)[..., : x.shape[-1]]
    if activations == "float8":
        scale = x.float().abs().amax(-1, keepdim=True) / FLOAT8_MAX
        numbers = torch.where(scale == 0, 0.0, x.float() / scale).clamp(-FLOAT8_MAX, FLOAT8_MAX)
        return numbers.to(FLOAT8).float() * scale
    return x.float()


class QuantizedLinear(PackedLinear, ABC):
    """A packed layer of weights of one scheme. `dtype` is that of inputs and answers."""

    scheme: Scheme
    activations: str

    def __init__(
        self, weights: Sequence[QuantizedWeight], bias: Tensor | None, dtype: torch.dtype, activations: str = "model"
    ) -> None:
        """Raises BadArgument when the weights cannot be merged, or for unknown activations."""
        if activations not in ACTIVATIONS:
            want = ", ".join(ACTIVATIONS)
            said = f"activations are {activations!r}; expected one of {want}"
            raise BadArgument(said, name="activations", got=activations, want=want)
        super().__init__([each.outs for each in weights], weights[0].ins, dtype, bias)
        self.scheme, self.activations = weights[0].scheme, activations

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.scheme}, activations {self.activations}"


class ReferenceQuantized(QuantizedLinear):
    """The meaning of the op, in plain torch: inputs rounded as `activations` says, times the weights, in float32."""

    packed: Tensor

    def __init__(
        self, weights: Sequence[QuantizedWeight], bias: Tensor | None, dtype: torch.dtype, activations: str = "model"
    ) -> None:
        super().__init__(weights, bias, dtype, activations)
        self.dequantize: Callable[[QuantizedWeight], Tensor] = QuantizedWeight.dequantized
        """Something quicker with the same answers may stand here."""
        whole = concatenated(weights)
        self.register_buffer("packed", whole.numbers, persistent=False)
        self.register_buffer("scale", whole.scale, persistent=False)
        self.register_buffer("shift", whole.shift, persistent=False)

    @property
    def weight(self) -> QuantizedWeight:
        named: Any = self
        return QuantizedWeight(self.scheme, self.packed, named.scale, named.shift, self.in_features)

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def unpack(self) -> Tensor:
        parts = range(0, self.out_features, CHUNK_ROWS)
        return torch.cat([self._rows(slice(at, at + CHUNK_ROWS)).to(self.dtype) for at in parts])

    def rows(self, ids: Tensor) -> Tensor:
        return self._rows(ids.flatten()).to(self.dtype).view(*ids.shape, self.in_features)

    def product(self, x: Tensor) -> Tensor:
        rounded = rounded_inputs(x, self.scheme.group, self.activations)
        answer = rounded.new_empty(*x.shape[:-1], self.out_features)
        for at in range(0, self.out_features, CHUNK_ROWS):  # nothing of a part stays, or the heap would have holes
            answer[..., at : at + CHUNK_ROWS] = rounded @ self._rows(slice(at, at + CHUNK_ROWS)).T
        return (answer if self.bias is None else answer + self.bias.float()).to(self.dtype)

    def _rows(self, ids: Tensor | slice) -> Tensor:
        return self.dequantize(self.weight.rows(ids))
