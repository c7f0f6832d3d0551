"""Rounding weights to few bits in C++: the search for scales, the numbers that follow from them, and back."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from ..quantized import QuantizedWeight, Scheme
from ..table import Spec
from .native import Native

PROBLEM = struct.Struct("=16q")
"""`Nearest` of nearest.cpp."""
SCALES, NUMBERS, WEIGHTS = "llmos_best_scales", "llmos_numbers", "llmos_dequantized"


class NativeNearest:
    """What `quant/nearest.py` does in torch, many times faster; sums of a group are taken in another order, so that of
    two scales with nearly the same error the other one may win."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def supports(self, weight: Tensor, scheme: Scheme) -> tuple[bool, str]:
        """Whether it can round weights, and why not."""
        if scheme.kind != "int":
            return False, "it rounds to whole numbers"
        spec: Spec = {"device": weight.device.type, "dtype": str(weight.dtype).removeprefix("torch.")}
        return self._native.supports(spec)

    def best_scales(
        self, weight: Tensor, scheme: Scheme, importance: Tensor | None, factors: Sequence[float]
    ) -> tuple[Tensor, Tensor | None]:
        """Scales (and shifts) [N, groups] float32 of least error for weights [N, K]: `quant.nearest.best_scales`."""
        scale = torch.empty(weight.shape[0], scheme.groups(weight.shape[1]))
        shift = torch.empty_like(scale) if scheme.shift else None
        tried = torch.tensor(factors, dtype=torch.float32)
        weighed = None if importance is None else importance.float().clamp(min=1e-12).contiguous()
        self._run(SCALES, weight, scheme, scale, shift, None, weighed, tried)
        return scale, shift

    def to_numbers(self, weight: Tensor, scheme: Scheme, scale: Tensor, shift: Tensor | None) -> QuantizedWeight:
        """As `ops.quantized.to_numbers`, to the same bits."""
        shape, dtype = scheme.numbers_of(*weight.shape)
        numbers = torch.empty(shape, dtype=dtype)
        wide = scale.float().contiguous(), None if shift is None else shift.float().contiguous()
        self._run(NUMBERS, weight, scheme, *wide, numbers, None, None)
        return QuantizedWeight(scheme, numbers, scale, shift, weight.shape[1])

    def dequantized(self, weight: QuantizedWeight) -> Tensor:
        """As `QuantizedWeight.dequantized`, to the same bits."""
        values = torch.empty(weight.outs, weight.ins)
        numbers, scale = weight.numbers.contiguous(), weight.scale.float().contiguous()
        shift = None if weight.shift is None else weight.shift.float().contiguous()
        self._run(WEIGHTS, values, weight.scheme, scale, shift, numbers, None, None)
        return values

    def _run(
        self, function: str, weight: Tensor, scheme: Scheme, scale: Tensor, shift: Tensor | None,
        numbers: Tensor | None, importance: Tensor | None, factors: Tensor | None,
    ) -> None:  # fmt: skip
        rows, ins = weight.shape
        weight = weight.detach() if weight.stride(1) == 1 else weight.detach().contiguous()
        places = [0 if part is None else part.data_ptr() for part in (importance, factors, scale, shift, numbers)]
        problem = PROBLEM.pack(
            weight.data_ptr(), *places, rows, ins, weight.stride(0), scheme.group or ins, scheme.groups(ins),
            0 if factors is None else len(factors), scheme.width == 4, weight.dtype == torch.bfloat16,
            0 if numbers is None else numbers.shape[1], torch.get_num_threads(),
        )  # fmt: skip
        getattr(self._native.run, function)(problem)
