"""Norms, gated units, rotary positions and page writes in C++; see the references for what they compute."""

from __future__ import annotations

import struct
from collections.abc import Callable

import torch
from torch import Tensor

from .native import Native, mismatch, no_gradient

NORM = struct.Struct("=15qd")
GATE = struct.Struct("=8q")
ROPE = struct.Struct("=31q")
"""`Norm`, `Gate` and `Rope` of layers.cpp."""

KINDS = {"silu_mul": 0, "gelu_mul": 1, "gelu_tanh_mul": 2}


class Layers:
    """The ops of `reference_layers` and `write_kv`, in bfloat16 or float32."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def rms_norm(
        self, x: Tensor, weight: Tensor, eps: float, unit_offset: bool = False, round_first: bool = True
    ) -> Tensor:
        """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
        return self._norm("rms_norm", x, None, weight, (unit_offset, round_first), eps)[0]

    def add_rms_norm(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float, unit_offset: bool = False,
        round_first: bool = True,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
        return self._norm("add_rms_norm", x, residual, weight, (unit_offset, round_first), eps)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
        no_gradient("add", x, residual)
        bfloat16, width = _bfloat16("add", x), x.shape[-1]
        if residual.shape != x.shape or residual.dtype != x.dtype:
            raise mismatch("add", "residual", (residual.dtype, tuple(residual.shape)), f"{x.dtype} {tuple(x.shape)}")
        flat, other, total = self._native.rows(x), self._native.rows(residual), x.new_empty(x.shape)
        rows = flat.shape[0]
        self._native.call(
            "llmos_norm",
            NORM.pack(
                flat.data_ptr(), other.data_ptr(), 0, 0, total.data_ptr(), rows, width, rows, 0, flat.stride(0),
                other.stride(0), False, False, torch.get_num_threads(), bfloat16, 0.0,
            ),
            flat, other, made=(total,),
        )  # fmt: skip
        return total

    def gated(self, op: str) -> Callable[[Tensor], Tensor]:
        """`silu_mul`, `gelu_mul` or `gelu_tanh_mul`."""

        def run(gate_up: Tensor) -> Tensor:
            no_gradient(op, gate_up)
            bfloat16 = _bfloat16(op, gate_up)
            flat = self._native.rows(gate_up)
            rows, width = flat.shape
            if width % 2:
                raise mismatch(op, "gate_up", tuple(gate_up.shape), "[..., 2 I]")
            out = gate_up.new_empty(*gate_up.shape[:-1], width // 2)
            self._native.call(
                "llmos_gate",
                GATE.pack(
                    flat.data_ptr(), out.data_ptr(), rows, width // 2, flat.stride(0), KINDS[op],
                    torch.get_num_threads(), bfloat16,
                ),
                flat, made=(out,),
            )  # fmt: skip
            return out

        return run

    def rope(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> None:
        """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
        self._rope("rope", q, k, cos, sin)

    def rope_write(
        self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor,
        slots: Tensor,
    ) -> None:  # fmt: skip
        """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
        self._rope("rope_write", q, k, cos, sin, v, k_pages, v_pages, slots)

    def write_kv(self, k: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, slots: Tensor) -> None:
        """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
        self._rope("write_kv", None, k, None, None, v, k_pages, v_pages, slots)

    def _norm(
        self, op: str, x: Tensor, residual: Tensor | None, weight: Tensor, form: tuple[bool, bool], eps: float
    ) -> tuple[Tensor, Tensor]:
        no_gradient(op, x, weight)
        bfloat16, width = _bfloat16(op, x), x.shape[-1]
        if weight.shape != (width,) or weight.dtype != x.dtype or not weight.is_contiguous():
            raise mismatch(op, "weight", (weight.dtype, tuple(weight.shape)), f"{x.dtype} [{width}], contiguous")
        if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
            raise mismatch(op, "residual", (residual.dtype, tuple(residual.shape)), f"{x.dtype} {tuple(x.shape)}")
        (given, rows, *steps), out = self._groups(x), x.new_empty(x.shape)
        other = given if residual is None else self._native.rows(residual)
        total = out if residual is None else x.new_empty(x.shape)
        self._native.call(
            "llmos_norm",
            NORM.pack(
                given.data_ptr(), 0 if residual is None else other.data_ptr(), weight.data_ptr(), out.data_ptr(),
                total.data_ptr(), rows, width, *steps, other.stride(-2) if other.ndim > 1 else 0, *form,
                torch.get_num_threads(), bfloat16, eps,
            ),
            given, other, weight, made=(out,) if residual is None else (out, total),
        )  # fmt: skip
        return out, total

    def _groups(self, x: Tensor) -> tuple[Tensor, int, int, int, int]:
        """x, how many rows it has, how many of them are a group, and the strides of groups and of rows in a group."""
        if x.ndim == 3 and x.stride(2) == 1:
            groups, group, _ = x.shape
            return x, groups * group, group, x.stride(0), x.stride(1)
        flat = self._native.rows(x)
        return flat, flat.shape[0], max(1, flat.shape[0]), 0, flat.stride(0)

    def _rope(
        self, op: str, q: Tensor | None, k: Tensor, cos: Tensor | None, sin: Tensor | None, v: Tensor | None = None,
        k_pages: Tensor | None = None, v_pages: Tensor | None = None, slots: Tensor | None = None,
    ) -> None:  # fmt: skip
        given = [tensor for tensor in (q, k, cos, sin, v, k_pages, v_pages) if tensor is not None]
        no_gradient(op, *given)
        bfloat16, tokens = _bfloat16(op, k), k.shape[0]
        for tensor in given:
            if tensor.dtype != k.dtype or tensor.stride(-1) != 1:
                raise mismatch(op, "a tensor", (tensor.dtype, tensor.stride()), f"{k.dtype}, its last dimension dense")
        if any(tensor.shape[0] != tokens for tensor in (q, cos, sin, v) if tensor is not None):
            raise mismatch(op, "tokens", [tuple(tensor.shape) for tensor in given], f"{tokens} in each")
        page_tokens = 1 if k_pages is None else k_pages.shape[2]
        self._native.call(
            "llmos_rope",
            ROPE.pack(
                *_heads(q), *_heads(k), *_heads(v), *_pages(op, k, k_pages), *_pages(op, v, v_pages),
                *_angles(op, k, cos, sin), _slots(op, slots, tokens), tokens, page_tokens, torch.get_num_threads(),
                bfloat16,
            ),
            *given, *(() if slots is None else (slots,)),
        )  # fmt: skip


def _heads(states: Tensor | None) -> tuple[int, ...]:
    """`Heads` of layers.cpp."""
    if states is None:
        return 0, 0, 0, 0, 0
    return states.data_ptr(), states.shape[1], states.shape[2], states.stride(0), states.stride(1)


def _pages(op: str, states: Tensor | None, pages: Tensor | None) -> tuple[int, ...]:
    """`Pages` of layers.cpp."""
    if states is None or pages is None:
        return 0, 0, 0
    _, heads, _, width = pages.shape
    if (heads, width) != states.shape[1:] or pages.stride(2) != width:
        raise mismatch(op, "pages", (tuple(pages.shape), pages.stride()), f"[pages, {heads}, tokens, {width}], dense")
    return pages.data_ptr(), pages.stride(0), pages.stride(1)


def _angles(op: str, k: Tensor, cos: Tensor | None, sin: Tensor | None) -> tuple[int, ...]:
    """`Angles` of layers.cpp."""
    if cos is None or sin is None:
        return 0, 0, 0, 0, 0
    rotary = cos.shape[-1]
    if cos.ndim != 2 or sin.shape != cos.shape or rotary % 2 or rotary > k.shape[2]:
        raise mismatch(op, "cos and sin", (tuple(cos.shape), tuple(sin.shape)), f"[tokens, even, at most {k.shape[2]}]")
    return cos.data_ptr(), sin.data_ptr(), rotary, cos.stride(0), sin.stride(0)


def _slots(op: str, slots: Tensor | None, tokens: int) -> int:
    if slots is None:
        return 0
    if slots.dtype != torch.int64 or slots.shape != (tokens,) or not slots.is_contiguous():
        raise mismatch(op, "slots", (slots.dtype, tuple(slots.shape)), f"int64 [{tokens}], contiguous")
    return slots.data_ptr()


def _bfloat16(op: str, x: Tensor) -> bool:
    if x.dtype not in (torch.bfloat16, torch.float32):
        raise mismatch(op, "dtype", x.dtype, "bfloat16 or float32")
    return x.dtype == torch.bfloat16
