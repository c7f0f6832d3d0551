"""Tensors [..., W] as rows that a kernel finds by two strides: heads in the middle of a product are not copied."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Rows(NamedTuple):
    """`number` dense rows of `tensor`; the n-th begins `n // inner * outer_step + n % inner * step` elements on."""

    tensor: Tensor
    number: int
    inner: int
    outer_step: int
    step: int


def rows_of(x: Tensor) -> Rows:
    """The rows of x; of a copy where they are not dense or need more than two strides."""
    width = x.shape[-1]
    merged: list[tuple[int, int]] = []
    for size, stride in zip(x.shape[:-1], x.stride()[:-1], strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1] == size * stride:
            size *= merged.pop()[0]
        merged.append((size, stride))
    if len(merged) > 2 or (width > 1 and x.stride(-1) != 1):
        return rows_of(x.contiguous())
    if len(merged) == 2:
        (outer, outer_step), (inner, step) = merged
        return Rows(x, outer * inner, inner, outer_step, step)
    count, outer_step = merged[0] if merged else (1, width)
    return Rows(x, count, 1, outer_step, 0)
