"""A linear layer in C++ that reads its weights once, in order, however many rows it computes.

The layout: outputs in panels of 32, and in a panel for each lane (two bfloat16 or one float32 of neighbouring inputs)
the 32 outputs' values: `[ceil(outs / 32), ceil(ins / per lane), 32, per lane]`, zeros where there is nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..linear import PIECE_BYTES, DenseLinear, Piece
from ..table import Spec
from .native import Native

PROBLEM = struct.Struct("=11q")
"""`Linear` of linear.cpp."""
PANEL = 32
LANE_BYTES = 4
CHUNK = 128
"""Panels that are packed at a time, to need little memory beside the result."""


class NativeLinear(DenseLinear):
    """bfloat16 or float32. A row's answer is the same bits whatever other rows are computed with it."""

    def __init__(self, native: Native, weights: Sequence[Tensor], bias: Tensor | None) -> None:
        """Raises BadArgument for weights that cannot be merged, NotSupported without the library."""
        super().__init__(weights, bias)
        native.check()
        self._native = native
        self._per_lane = 2 if self.dtype == torch.bfloat16 else 1
        self._lanes = -(-self.in_features // self._per_lane)
        panels = -(-self.out_features // PANEL)
        packed = native.memory.empty((panels, self._lanes, PANEL, self._per_lane), self.dtype)
        for start in range(0, panels, CHUNK):
            packed[start : start + CHUNK] = self._panels(_rows(weights, start * PANEL, (start + CHUNK) * PANEL))
        self.register_buffer("packed", packed, persistent=False)

    @staticmethod
    def supports(native: Native, spec: Spec) -> tuple[bool, str]:
        if spec.get("dtype") == "bfloat16" and torch.cpu._is_amx_tile_supported():
            return False, "this processor has AMX, which oneDNN uses"
        return native.supports(spec)

    def unpack(self) -> Tensor:
        lanes = self._whole.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        return self._dense(lanes)[: self.out_features]

    @property
    def piece(self) -> int:
        panels = max(1, PIECE_BYTES // (PANEL * LANE_BYTES * self._lanes))
        return min(panels * PANEL, self.out_features)

    def pieces(self) -> Iterator[Piece]:
        panels = -(-self.piece // PANEL)
        room = torch.empty((panels, PANEL, self._lanes), dtype=torch.int32)
        for first, part in enumerate(torch.split(self._whole, panels)):
            start = first * panels * PANEL
            stop = min(start + panels * PANEL, self.out_features)
            dense = self._dense(room[: len(part)].copy_(part.transpose(1, 2)))
            yield slice(start, stop), dense[: stop - start]

    def rows(self, ids: Tensor) -> Tensor:
        found = self.packed[ids // PANEL, :, ids % PANEL]
        return found.flatten(-2)[..., : self.in_features]

    def product(self, x: Tensor) -> Tensor:
        flat = self._native.rows(x)
        out = x.new_empty(*x.shape[:-1], self.out_features)
        self._native.call(
            "llmos_linear",
            PROBLEM.pack(
                flat.data_ptr(), self.packed.data_ptr(), 0 if self.bias is None else self.bias.data_ptr(),
                out.data_ptr(), flat.shape[0], self.in_features, self.out_features, flat.stride(0), self.out_features,
                torch.get_num_threads(), self._per_lane == 2,
            ),
            flat, self.packed, *(() if self.bias is None else (self.bias,)), made=(out,),
        )  # fmt: skip
        return out

    @property
    def _whole(self) -> Tensor:
        """Lanes [panels, lanes, 32] as numbers, which move in half the steps of what is in them."""
        return self.packed.view(torch.int32).view(-1, self._lanes, PANEL)

    def _dense(self, lanes: Tensor) -> Tensor:
        """Weights [outs, ins] of lanes int32 [panels, 32, lanes]."""
        return lanes.view(self.dtype).view(-1, self._lanes * self._per_lane)[:, : self.in_features]

    def _panels(self, rows: Tensor) -> Tensor:
        padded = F.pad(rows, (0, -rows.shape[1] % self._per_lane, 0, -rows.shape[0] % PANEL))
        return padded.view(-1, PANEL, self._lanes, self._per_lane).transpose(1, 2)


def _rows(weights: Sequence[Tensor], start: int, stop: int) -> Tensor:
    """Rows `start` to `stop` of the weights as if they stood below one another."""
    found, first = [], 0
    for weight in weights:
        inside = slice(max(0, start - first), max(0, stop - first))
        found.append(weight.detach()[inside])
        first += weight.shape[0]
    return found[0] if len(found) == 1 else torch.cat(found)
