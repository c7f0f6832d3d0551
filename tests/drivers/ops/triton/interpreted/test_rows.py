"""Rows that kernels find by two strides."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llmos.drivers.ops.triton.rows import Rows, rows_of


def seen(rows: Rows, width: int) -> Tensor:
    """What a kernel reads."""
    flat = rows.tensor.as_strided((rows.tensor.untyped_storage().size() // rows.tensor.element_size(),), (1,), 0)
    starts = [n // rows.inner * rows.outer_step + n % rows.inner * rows.step for n in range(rows.number)]
    begin = rows.tensor.storage_offset()
    return torch.stack([flat[begin + at : begin + at + width] for at in starts])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.permutations(range(4)), st.booleans())
def test_they_are_the_rows_of_the_tensor(sizes: list[int], order: list[int], sliced: bool) -> None:
    x = torch.randn(*sizes)
    x = x.permute([place for place in order if place < len(sizes)])
    x = x[..., :-1] if sliced and x.shape[-1] > 1 else x
    rows = rows_of(x)
    assert rows.number == x.numel() // x.shape[-1]
    assert torch.equal(seen(rows, x.shape[-1]), x.reshape(-1, x.shape[-1]))


def test_heads_of_a_merged_product_are_not_copied() -> None:
    merged = torch.randn(1, 5, 6 * 8)
    heads = merged.view(1, 5, 6, 8)[:, :, 1:-1]
    assert rows_of(heads)[1:] == (20, 4, 48, 8) and rows_of(heads).tensor is heads
    assert rows_of(merged[..., :8])[1:] == (5, 1, 48, 0)
    assert rows_of(merged[0, :, 0]).number == 1
