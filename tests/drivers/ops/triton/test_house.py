"""What all kernels share, as it is on a device: without the interpreter."""

from __future__ import annotations

import pytest
import torch

tl = pytest.importorskip("triton.language")

from llmos.drivers.ops.triton import house  # noqa: E402


def test_kernels_serve_cuda_and_floating_numbers() -> None:
    assert house.served({"device": "cuda", "dtype": "bfloat16"}) == (True, "")
    assert house.served({"device": "cpu", "dtype": "bfloat16"}) == (False, "Triton's kernels run on cuda here")
    assert house.served({"device": "cuda", "dtype": "float64"})[1].startswith("dtype float64")


def test_operands_of_products_keep_their_dtype_on_a_device() -> None:
    assert house.dot_dtype(torch.bfloat16) is tl.bfloat16
    assert house.dot_dtype(torch.float32) is tl.float32


def test_sizes() -> None:
    assert [house.cdiv(n, 16) for n in (0, 1, 16, 17)] == [0, 1, 1, 2]
    assert [house.power_of_2(n) for n in (0, 1, 2, 3, 64, 65)] == [1, 1, 2, 4, 64, 128]
