"""The products of low-rank adapters in C++; see `reference_lora` for what they compute."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from llmos.syscalls.errors import NotSupported

from ..reference_lora import Segments, Slice, Where, sliced
from ..table import Spec
from .native import DTYPES, Native, mismatch, no_gradient

PROBLEM = struct.Struct("=15q")
"""`Lora` of lora.cpp."""

SEGMENTS = "segments"
WHY = "adapters on the processor take segments of tokens, not slots"


class Lora:
    """`lora_shrink` and `lora_expand` in bfloat16 or float32. A token's answer is the same bits in any step."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def supports(self, spec: Spec) -> tuple[bool, str]:
        fits, reason = self._native.supports(spec)
        if fits and spec.get("where", SEGMENTS) != SEGMENTS:
            return False, WHY
        return fits, reason

    def shrink(self, x: Tensor, a: Tensor, where: Where) -> Tensor:
        """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad or for slots."""
        segments = _segments(where)
        _check("lora_shrink", x, a, segments, (a.shape[2], x.shape[1]))
        tokens = min(segments.end, x.shape[0])
        hidden = x.new_empty(tokens - segments.start, a.shape[1])
        problem = _problem(x, a, hidden, segments, tokens)
        self._native.call("llmos_lora_shrink", problem, x, a, segments.table, made=(hidden,))
        return hidden

    def expand(self, y: Tensor, hidden: Tensor, b: Tensor, where: Where, slices: Sequence[Slice] = ()) -> None:
        """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad or for slots."""
        segments = _segments(where)
        for own, part, matrix in sliced(y, hidden, b, slices):
            self._expand(own, part, matrix, segments)

    def _expand(self, y: Tensor, hidden: Tensor, b: Tensor, segments: Segments) -> None:
        _check("lora_expand", hidden, b, segments, (b.shape[1], hidden.shape[1]))
        tokens = min(segments.end, y.shape[0])
        if y.dtype != b.dtype or y.stride(1) != 1 or y.shape[1] != b.shape[2]:
            raise mismatch("lora_expand", "y", (y.dtype, tuple(y.shape), y.stride()), f"{b.dtype} [T, {b.shape[2]}]")
        self._native.call("llmos_lora_expand", _problem(hidden, b, y, segments, tokens), hidden, b, segments.table, y)


def _segments(where: Where) -> Segments:
    if not isinstance(where, Segments):
        raise NotSupported(f"lora: {WHY}", why=WHY)
    return where


def _check(op: str, given: Tensor, stack: Tensor, segments: Segments, widths: tuple[int, int]) -> None:
    no_gradient(op, given, stack)
    if given.dtype not in DTYPES.values() or stack.dtype != given.dtype or widths[0] != widths[1]:
        raise mismatch(op, "tensors", (given.dtype, stack.dtype, widths), "the same dtype and width")
    if stack.shape[0] < segments.places:
        raise mismatch(op, "stack", tuple(stack.shape), f"at least {segments.places} places")
    if given.stride(1) != 1 or stack.stride(2) != 1:
        raise mismatch(op, "strides", (given.stride(), stack.stride()), "dense in the last dimension")


def _problem(given: Tensor, stack: Tensor, out: Tensor, segments: Segments, tokens: int) -> bytes:
    return PROBLEM.pack(
        given.data_ptr(), stack.data_ptr(), segments.table.data_ptr(), out.data_ptr(), segments.table.shape[0], tokens,
        segments.start, stack.shape[1], stack.shape[2], given.stride(0), out.stride(0), stack.stride(0),
        stack.stride(1), torch.get_num_threads(), given.dtype == torch.bfloat16,
    )  # fmt: skip
