"""Linear layers of weights of 4 or 8 bits in C++: whole numbers times inputs that are rounded to whole numbers.

The layout: outputs in panels of 32, and a panel in parts of inputs that share a scale (all inputs of an output with one
scale are cut into parts that repeat it, so that no sum of whole numbers is too large). A part holds its numbers, its 32
scales and, where there are any, its 32 shifts, all in the order in which they are read:

    [ceil(outs / 32), parts, bytes of a part]
    numbers of 8 bits [lanes, 32, 4]: four neighbouring inputs of each output
    numbers of 4 bits [lanes / 2, 32, 4]: those of an even lane in the low bits and of the next one in the high bits

What is filled up counts as zero, since its inputs are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from llmos.syscalls.errors import NotSupported

from ..linear import PIECE_BYTES, Piece
from ..quantized import QuantizedWeight, concatenated, pack_nibbles
from ..quantized_linear import QuantizedLinear
from ..table import Spec
from .native import Native

PROBLEM = struct.Struct("=18q")
"""`Quantized` of quantized.cpp."""
PACKING = struct.Struct("=18q")
"""`Packing` of quantized_pack.cpp."""
OP = "llmos_quantized_linear"
PANEL = 32
CHUNK = 64
"""Panels that are packed or unpacked at a time, to need little memory beside the result."""
LANE = 4
"""Inputs that are multiplied at a time."""
UNIT, MOST = 64, 1024
"""Parts of inputs that all share a scale are a multiple of the one and at most the other."""


def part_inputs(ins: int, group: int) -> int:
    """Inputs of a part; their parts fill `ins` up to a multiple of the group, or of 64 where all share a scale."""
    if group:
        return group
    units = -(-ins // UNIT)
    return UNIT * max(size for size in range(1, MOST // UNIT + 1) if units % size == 0)


class NativeQuantized(QuantizedLinear):
    """Whole numbers, inputs rounded to 8 bits. A row's answer is the same bits whatever others are computed with it."""

    plain_matrix: ClassVar[bool] = False
    """Do in plain C++ what a matrix unit would, where there are many rows: for tests on processors without one."""

    def __init__(
        self, native: Native, weights: Sequence[QuantizedWeight], bias: Tensor | None, dtype: torch.dtype,
        activations: str = "int8",
    ) -> None:  # fmt: skip
        """Raises BadArgument for weights that cannot be merged, NotSupported for what it does not serve."""
        super().__init__(weights, bias, dtype, activations)
        fits, why = self.supports(native, {"device": "cpu", "dtype": str(dtype).removeprefix("torch."),
                                           "kind": self.scheme.kind, "activations": activations})  # fmt: skip
        if not fits:
            raise NotSupported(f"no quantized layer in C++: {why}", why=why)
        native.check()
        self._native = native
        self._part = part_inputs(self.in_features, self.scheme.group)
        self._parts = -(-self.in_features // self._part)
        self._numbers = self._part * PANEL * self.scheme.width // 8
        none = concatenated([each.rows(slice(0)) for each in weights])
        self._scales = _widest([part.dtype for part in (none.scale, none.shift) if part is not None])
        size = self._numbers + PANEL * self._scales.itemsize * (1 + self.scheme.shift)
        packed = native.memory.empty((-(-self.out_features // PANEL), self._parts, size), torch.uint8)
        packed[-1:] = 0  # of which not all outputs may be there
        self.register_buffer("packed", packed, persistent=False)
        first = 0
        for each in weights:
            for start in range(0, each.outs, CHUNK * PANEL):
                self._pack(first + start, each.rows(slice(start, start + CHUNK * PANEL)))
            first += each.outs

    @staticmethod
    def supports(native: Native, spec: Spec) -> tuple[bool, str]:
        if spec.get("kind", "int") != "int":
            return False, "it multiplies whole numbers"
        if spec.get("activations") != "int8":
            return False, f"it rounds inputs to int8; activations are {spec.get('activations')}"
        return native.supports(spec)

    def unpack(self) -> Tensor:
        return torch.cat([weights for _, weights in self.pieces()])

    @property
    def piece(self) -> int:
        panels = max(1, PIECE_BYTES // (PANEL * self.in_features * torch.float32.itemsize))
        return min(panels * PANEL, self.out_features)

    def pieces(self) -> Iterator[Piece]:
        for first, panels in enumerate(torch.split(self.packed, -(-self.piece // PANEL))):
            lanes = self._of_numbers(panels).permute(0, 3, 1, 2, 4).flatten(0, 1)
            scales = [part.transpose(1, 2).flatten(0, 1) for part in self._of_scales(panels)]
            start = first * self.piece
            weights = self._weight(lanes, scales).dequantized().to(self.dtype)[: self.out_features - start]
            yield slice(start, start + len(weights)), weights

    def rows(self, ids: Tensor) -> Tensor:
        panels, places = ids.flatten() // PANEL, ids.flatten() % PANEL
        lanes = self._of_numbers(self.packed)[panels, :, :, places]
        scales = [part[panels, :, places] for part in self._of_scales(self.packed)]
        return self._weight(lanes, scales).dequantized().to(self.dtype).view(*ids.shape, self.in_features)

    def product(self, x: Tensor) -> Tensor:
        flat = self._native.rows(x)
        out = x.new_empty(*x.shape[:-1], self.out_features)
        self._native.call(
            OP,
            PROBLEM.pack(
                flat.data_ptr(), self.packed.data_ptr(), 0 if self.bias is None else self.bias.data_ptr(),
                out.data_ptr(), flat.shape[0], self.in_features, self.out_features, flat.stride(0), self.out_features,
                torch.get_num_threads(), self.dtype == torch.bfloat16, self.scheme.width == 4, self._parts,
                self._part // LANE, self.scheme.group == 0, self.scheme.shift, self._scales == torch.float32,
                self.plain_matrix,
            ),
            flat, self.packed, *(() if self.bias is None else (self.bias,)), made=(out,),
        )  # fmt: skip
        return out

    def _pack(self, first: int, weight: QuantizedWeight) -> None:
        """Outputs put into their panels, from output `first` on."""
        numbers, scale = _dense(weight.numbers), _dense(weight.scale)
        shift = scale.new_empty(0, 0) if weight.shift is None else _dense(weight.shift)
        self._native.run.llmos_quantized_pack(
            PACKING.pack(
                numbers.data_ptr(), scale.data_ptr(), shift.data_ptr() if self.scheme.shift else 0,
                self.packed.data_ptr(), first, weight.outs, weight.ins, numbers.stride(0),
                scale.stride(0) * scale.itemsize, shift.stride(0) * shift.itemsize, self.scheme.width == 4, self._parts,
                self._part, self.scheme.group == 0, scale.dtype == torch.float32, shift.dtype == torch.float32,
                self._scales == torch.float32, torch.get_num_threads(),
            )
        )  # fmt: skip

    def _of_numbers(self, panels: Tensor) -> Tensor:
        """The bytes of panels that hold numbers, [panels, parts, lanes or half of them, 32, 4]."""
        lanes: Tensor = panels[..., : self._numbers].unflatten(-1, (-1, PANEL, LANE))  # type: ignore[no-untyped-call]
        return lanes

    def _of_scales(self, panels: Tensor) -> list[Tensor]:
        """The scales, and the shifts if there are any, of panels, [panels, parts, 32] each."""
        return list(torch.split(panels[..., self._numbers :].view(self._scales), PANEL, dim=-1))

    def _weight(self, lanes: Tensor, scales: Sequence[Tensor]) -> QuantizedWeight:
        """Outputs as they were before they were packed: of the bytes of their numbers [N, parts, lanes or half of them,
        4], and what they have of scales [N, parts]."""
        if self.scheme.width == 4:
            lanes = torch.stack((lanes & 15, lanes >> 4), dim=3).flatten(2, 3)
        numbers = lanes.flatten(1)[:, : self.in_features]
        numbers = pack_nibbles(numbers) if self.scheme.width == 4 else numbers
        scale, *shift = (part[:, : self.scheme.groups(self.in_features)] for part in scales)
        return QuantizedWeight(self.scheme, numbers, scale, shift[0] if shift else None, self.in_features)


def _dense(rows: Tensor) -> Tensor:
    """Each row without gaps; not copied where it is so."""
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _widest(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    return max(dtypes, key=lambda dtype: dtype.itemsize)
