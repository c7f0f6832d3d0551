"""Attention in C++, causal over pages and whole over packed rows; see `reference_attention` for what is computed."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from ..table import Spec
from .native import Native, mismatch, no_gradient

OP = "paged_attention"
PACKED = "packed_attention"
PAGE_MULTIPLE = 16
PROBLEM = struct.Struct("=8Q6q9q4q2d")
"""`Problem` of attention.cpp."""


def _fits(native: Native, spec: Spec) -> tuple[bool, str]:
    fits, reason = native.supports(spec)
    if fits and spec["dtype"] == "bfloat16" and int(spec.get("key_width", 2)) % 2:
        return False, f"heads of {spec['key_width']} bfloat16 values; their number must be even"
    return fits, reason


class PagedAttention:
    """Rows packed one after the other, each against its own pages; bfloat16 or float32.

    An answer is the same bits whatever else is in the step, however a row is cut into steps, and for any number of
    threads.
    """

    def __init__(self, native: Native) -> None:
        self._native = native

    def supports(self, spec: Spec) -> tuple[bool, str]:
        fits, reason = _fits(self._native, spec)
        if fits and int(spec.get("page_tokens", PAGE_MULTIPLE)) % PAGE_MULTIPLE:
            return False, f"pages of {spec['page_tokens']} tokens; expected a multiple of {PAGE_MULTIPLE}"
        return fits, reason

    def __call__(
        self, q: Tensor, k_pages: Tensor, v_pages: Tensor, page_table: Tensor, cu_q: Tensor, lengths: Tensor,
        scale: float, window: int = 0, softcap: float = 0.0, sinks: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
        tokens, heads, dim = q.shape
        _, kv_heads, page_tokens, value_dim = v_pages.shape
        q_token, q_head, q_last = q.stride()
        k_page, k_head, k_token, k_last = k_pages.stride()
        v_page, v_head, v_token, v_last = v_pages.stride()
        dtype = q.dtype
        no_gradient(OP, q, k_pages, v_pages)
        if dtype not in (torch.bfloat16, torch.float32) or k_pages.dtype != dtype or v_pages.dtype != dtype:
            raise mismatch(OP, "dtype", (dtype, k_pages.dtype, v_pages.dtype), "bfloat16 or float32, the same for all")
        if k_pages.shape[1:] != (kv_heads, page_tokens, dim) or heads % kv_heads or page_tokens % PAGE_MULTIPLE:
            raise mismatch(OP, "k_pages", tuple(k_pages.shape), f"[pages, {kv_heads}, 16 n, {dim}] for {heads} heads")
        if (q_last, k_token, k_last, v_token, v_last) != (1, dim, 1, value_dim, 1):
            raise mismatch(OP, "strides", (q.stride(), k_pages.stride(), v_pages.stride()), "dense inner dimensions")
        for name, tensor, size in (("cu_q", cu_q, lengths.shape[0] + 1), ("lengths", lengths, lengths.shape[0])):
            if tensor.dtype != torch.int32 or tensor.shape != (size,) or not tensor.is_contiguous():
                raise mismatch(OP, name, (tensor.dtype, tuple(tensor.shape)), f"int32 [{size}], contiguous")
        if page_table.dtype != torch.int32 or page_table.shape[0] != lengths.shape[0] or page_table.stride(1) != 1:
            raise mismatch(OP, "page_table", (page_table.dtype, tuple(page_table.shape)), "int32 [rows, pages]")
        out = q.new_empty(tokens, heads, value_dim)
        scores = None if sinks is None else sinks.float().contiguous()
        self._native.call(
            "llmos_paged_attention",
            PROBLEM.pack(
                q.data_ptr(), k_pages.data_ptr(), v_pages.data_ptr(), page_table.data_ptr(), cu_q.data_ptr(),
                lengths.data_ptr(), 0 if scores is None else scores.data_ptr(), out.data_ptr(), lengths.shape[0], heads,
                kv_heads, dim, value_dim, page_tokens, q_token, q_head, k_page, k_head, k_token,
                v_page, v_head, v_token, page_table.stride(0), window, True, torch.get_num_threads(),
                dtype == torch.bfloat16, scale, softcap,
            ),
            q, k_pages, v_pages, page_table, cu_q, lengths, *(() if scores is None else (scores,)), made=(out,),
        )  # fmt: skip
        return out


class PackedAttention:
    """Rows packed one after the other, each to all of its own tokens; bfloat16 or float32.

    To the kernel each row is one page, which begins at the row's first token. An answer is the same bits whatever else
    is packed, and for any number of threads.
    """

    def __init__(self, native: Native) -> None:
        self._native = native

    def supports(self, spec: Spec) -> tuple[bool, str]:
        return _fits(self._native, spec)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, scale: float) -> Tensor:
        """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
        tokens, heads, dim = q.shape
        kv_heads, value_dim = v.shape[1:]
        dtype, rows = q.dtype, starts.shape[0] - 1
        no_gradient(PACKED, q, k, v)
        if dtype not in (torch.bfloat16, torch.float32) or k.dtype != dtype or v.dtype != dtype:
            raise mismatch(PACKED, "dtype", (dtype, k.dtype, v.dtype), "bfloat16 or float32, the same for all")
        if k.shape != (tokens, kv_heads, dim) or v.shape[0] != tokens or heads % kv_heads:
            raise mismatch(PACKED, "k", tuple(k.shape), f"[{tokens}, {kv_heads}, {dim}] for {heads} heads")
        if (q.stride(2), k.stride(2), v.stride(2)) != (1, 1, 1):
            raise mismatch(PACKED, "strides", (q.stride(), k.stride(), v.stride()), "dense inner dimensions")
        ends = starts.tolist()
        if starts.dtype != torch.int32 or ends != sorted(ends) or (ends[0], ends[-1]) != (0, tokens):
            raise mismatch(PACKED, "starts", (starts.dtype, ends), f"int32, from 0 up to {tokens}")
        lengths = starts.diff()
        out = q.new_empty(tokens, heads, value_dim)
        page = -(-max(1, tokens) // PAGE_MULTIPLE) * PAGE_MULTIPLE
        self._native.call(
            "llmos_paged_attention",
            PROBLEM.pack(
                q.data_ptr(), k.data_ptr(), v.data_ptr(), starts.data_ptr(), starts.data_ptr(), lengths.data_ptr(), 0,
                out.data_ptr(), rows, heads, kv_heads, dim, value_dim, page, q.stride(0), q.stride(1), k.stride(0),
                k.stride(1), k.stride(0), v.stride(0), v.stride(1), v.stride(0), 1, 0, False, torch.get_num_threads(),
                dtype == torch.bfloat16, scale, 0.0,
            ),
            q, k, v, starts, lengths, made=(out,),
        )  # fmt: skip
        return out
