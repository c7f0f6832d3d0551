"""What all kernels share, in the interpreter."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from llmos.drivers.ops.triton import house


@triton.jit
def _tanh(x, out, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    tl.store(out + place, house.tanh(tl.load(x + place)))


def test_tanh_is_right_from_end_to_end() -> None:
    x = torch.tensor([-100.0, -9.0, -1.0, -1e-4, 0.0, 1e-4, 0.5, 100.0])
    out = torch.empty_like(x)
    _tanh[(1,)](x, out, 8)
    torch.testing.assert_close(out, torch.tanh(x), rtol=0, atol=2e-7)


def test_everything_is_float32_in_the_interpreter() -> None:
    assert house.INTERPRET
    assert house.dot_dtype(torch.bfloat16) is tl.float32
    assert house.served({"device": "cpu", "dtype": "bfloat16"}) == (True, "")
    assert not house.served({"device": "cuda", "dtype": "bfloat16"})[0]
