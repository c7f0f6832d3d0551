"""Kernels of quantized weights alone: parts that are folded, and numbers of 8 bits that are floating."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from llmos.drivers.ops.quantized import FLOAT8
from llmos.drivers.ops.triton import quantized_kernels as kernels


@triton.jit
def _floats(words, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out + at, kernels._field(tl.load(words + at), 0, 8, 8, 0, True))


def test_bits_of_e4m3_stand_for_what_torch_says() -> None:
    every = torch.tensor([i for i in range(256) if i & 127 != 127] + [0, 0])
    out = torch.empty(256)
    _floats[(1,)]((every << 8 | 0x70FF00FF).to(torch.int32), out, 256)
    assert torch.equal(out, every.to(torch.uint8).view(FLOAT8).float())


def test_parts_are_added_in_order_and_the_bias_last() -> None:
    parts, bias, out = torch.randn(3, 2, 5), torch.randn(5), torch.empty(2, 5)
    kernels.fold[(2,)](parts, bias, out, 10, 5, PARTS=3, BLOCK=8)
    assert torch.equal(out, parts[0] + parts[1] + parts[2] + bias)
