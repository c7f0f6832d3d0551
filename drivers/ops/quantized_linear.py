"""Linear layers of quantized weights: what the op `quantized_linear` makes.

Its `activations` say what is multiplied: `model`, the inputs as they are; `int8`, inputs that are rounded to 8 bits for
each token and group, so that whole numbers are multiplied (as llama.cpp does); `float8`, inputs that are rounded to
e4m3 for each token. `ReferenceQuantized` is the meaning of each, and serves every case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument

from .float8 import Float8Rows, float8_rows
from .linear import PackedLinear, Piece
from .quantized import QuantizedWeight, Scheme, concatenated, grouped

INT8_MAX = 127.0
ACTIVATIONS = ("model", "int8", "float8")
CHUNK_ROWS = 4096
"""Outputs whose weights are unpacked at a time."""


def int8_groups(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Inputs [..., K] rounded for each token and group: whole numbers -127 to 127 [..., groups, group] and scales
    [..., groups], both float32. With m the largest of a group: q = round(x * (127 / m)), half to even, scale m / 127;
    all 0 where m is, or where it is so small that 127 / m is no number any more."""
    parts = grouped(x.float(), group)
    largest = parts.abs().amax(-1)
    inverse = INT8_MAX / largest
    inverse = torch.where(inverse.isinf(), 0.0, inverse)
    return (parts * inverse.unsqueeze(-1)).round(), largest / INT8_MAX


def rounded_inputs(x: Tensor, group: int, activations: str) -> Tensor:
    """What inputs [..., K] are worth after they were rounded as `activations` says, float32."""
    if activations == "int8":
        numbers, scale = int8_groups(x, group)
        return (numbers * scale.unsqueeze(-1)).flatten(-2)[..., : x.shape[-1]]
    if activations == "float8":
        return float8_rows(x).worth()
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

    @property
    def scratch(self) -> int:
        """Of each weight its number, and float32 of that, of its scale, of its shift and of what comes of them; beside
        the piece before."""
        each = 1 + 4 * (2 + (self.scheme.group > 0) + self.scheme.shift)
        before = self.dtype.itemsize if self.piece < self.out_features else 0
        return self.piece * self.in_features * (each + before)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.scheme}, activations {self.activations}"


class Float8Taking(QuantizedLinear, ABC):
    """A layer that also takes inputs which are rounded to e4m3 already, where its `activations` are that."""

    @abstractmethod
    def product(self, x: Tensor | Float8Rows) -> Tensor: ...

    def forward(self, x: Tensor | Float8Rows) -> Tensor:
        if not isinstance(x, Float8Rows):
            return super().forward(x)
        if self.activations != "float8" or x.shape[-1] != self.in_features:
            got = f"e4m3 {tuple(x.shape)}"
            want = f"[..., {self.in_features}] for activations {self.activations}"
            raise BadArgument(f"x is {got}; expected {want}", name="x", got=got, want=want)
        return self.product(x)


class ReferenceQuantized(Float8Taking):
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
        return torch.cat([weights for _, weights in self.pieces()])

    @property
    def piece(self) -> int:
        return min(CHUNK_ROWS, self.out_features)

    def pieces(self) -> Iterator[Piece]:
        for at in range(0, self.out_features, CHUNK_ROWS):
            outs = slice(at, min(at + CHUNK_ROWS, self.out_features))
            yield outs, self._rows(outs).to(self.dtype)

    def rows(self, ids: Tensor) -> Tensor:
        return self._rows(ids.flatten()).to(self.dtype).view(*ids.shape, self.in_features)

    def product(self, x: Tensor | Float8Rows) -> Tensor:
        rounded = x.worth() if isinstance(x, Float8Rows) else rounded_inputs(x, self.scheme.group, self.activations)
        answer = rounded.new_empty(*x.shape[:-1], self.out_features, dtype=self.dtype)
        for at in range(0, self.out_features, CHUNK_ROWS):  # nothing of a part stays, or the heap would have holes
            outs = slice(at, at + CHUNK_ROWS)
            part = rounded @ self._rows(outs).T
            answer[..., outs] = part if self.bias is None else part + self.bias[outs].float()
        return answer

    def _rows(self, ids: Tensor | slice) -> Tensor:
        return self.dequantize(self.weight.rows(ids))
