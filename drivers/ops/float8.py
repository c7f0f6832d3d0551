"""Inputs of products as e4m3 numbers with a scale for each token: what norms hand to layers that multiply such inputs.

With m the greatest size in a token x and a = m / 448, the greatest that e4m3 has, a number is x / a rounded to nearest,
ties to even; a token of zeros has a scale of 0. Libraries multiply tiles of 16, so rows and columns are filled up to
multiples of it with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .quantized import FLOAT8, FLOAT8_MAX

FILLED = 16
"""Tokens, inputs and outputs of a product are multiples of it."""


@dataclass(frozen=True)
class Float8Rows:
    """Tokens of `shape` [..., K]: `numbers` [T filled up, K filled up] e4m3, `scale` [T filled up, 1] float32."""

    numbers: Tensor
    scale: Tensor
    shape: torch.Size

    @property
    def tokens(self) -> int:
        return self.shape[:-1].numel()

    def worth(self) -> Tensor:
        """What the numbers stand for, of `shape`, float32."""
        wide = self.numbers[: self.tokens, : self.shape[-1]].float() * self.scale[: self.tokens]
        return wide.view(self.shape)


def filled(count: int) -> int:
    """So many and what fills them up."""
    return -(-count // FILLED) * FILLED


def room_for(x: Tensor) -> Float8Rows:
    """Of tokens [..., K], with nothing in it yet."""
    rows, width = filled(x.shape[:-1].numel()), filled(x.shape[-1])
    numbers = torch.empty(rows, width, dtype=torch.uint8, device=x.device).view(FLOAT8)
    return Float8Rows(numbers, torch.empty(rows, 1, dtype=torch.float32, device=x.device), x.shape)


def float8_rows(x: Tensor) -> Float8Rows:
    """Tokens [..., K] rounded, in plain torch."""
    wide = x.float().reshape(-1, x.shape[-1])
    wide = F.pad(wide, (0, filled(wide.shape[1]) - wide.shape[1], 0, filled(wide.shape[0]) - wide.shape[0]))
    scale = wide.abs().amax(-1, keepdim=True) / FLOAT8_MAX
    numbers = torch.where(scale == 0, 0.0, wide / scale).clamp(-FLOAT8_MAX, FLOAT8_MAX)
    return Float8Rows(numbers.to(FLOAT8), scale, x.shape)
