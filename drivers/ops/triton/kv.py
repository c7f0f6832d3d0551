"""Rotary positions and the write of keys and values into their pages, in one pass over a token's heads.

    low' = low * cos[:R/2] - high * sin[:R/2]      high' = high * cos[R/2:] + low * sin[R/2:]

of the first R elements of a head (Su et al. 2021; the halves are the pairs, as in transformers' Llama); the others stay
as they are. Products and sums are made in float32 and rounded once.

A program has some heads of one token: of its queries, which are turned in place, or of its keys and values, which go to
`slots[t]` = page * PAGE + place of pages [pages, Hkv, PAGE, D] with any stride between pages. Heads of quantized pages
are divided by their greatest number over the dtype's greatest, one scale for each token and head, after they were
rounded as the model's dtype rounds. What is not finite makes its scale infinite, so that it is not lost.

Rounding to int8 and float8 is spelled out, so that it is the same in the interpreter, which cannot: to nearest, ties to
even, by adding 1.5 * 2^23 for integers, and on the bits for the 3 bits of an e4m3 mantissa.

Bound: bytes; q is read and written, k and v are read, the pages written: (2 Hq D + 2 Hkv (D + Dv)) * itemsize a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..checks import mismatch, no_gradient
from ..reference_attention import LIMITS
from ..table import OpTable
from .attend import supports
from .house import cdiv, power_of_2
from .variants import Variant

PROGRAM_ELEMENTS = 1024
"""Elements of heads that a program holds."""


@triton.jit
def _rounded(x, INT8: tl.constexpr):
    """To what int8 or float8_e4m3fn can hold, still in float32."""
    if INT8:
        answer = (x + 12582912.0) - 12582912.0
    else:
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000
        small = (x + 24576.0) - 24576.0  # below 2^-6 the distance is 2^-9
        answer = tl.where(tl.abs(x) < 0.015625, small, bits.to(tl.float32, bitcast=True))
    return answer


@triton.jit
def _put(x, pages, there, kept, shared, SCALED: tl.constexpr, INT8: tl.constexpr):
    """Part of a head into its page, divided by the head's scale where there are scales."""
    if SCALED:
        x = _rounded(tl.div_rn(x, tl.broadcast_to(shared[:, None], x.shape)), INT8)
    tl.store(pages + there, x.to(pages.dtype.element_ty), mask=kept)


@triton.jit
def _most(x):
    """The greatest size in each head; what is no number counts as infinite."""
    return tl.max(tl.where(x == x, tl.abs(x), float("inf")), 1)


@triton.jit
def _shared(most, scales, there, kept, LIMIT: tl.constexpr):
    """Stores the scale of each head, and answers what to divide it by."""
    scale = most * (1.0 / LIMIT)
    tl.store(scales + there, scale, mask=kept)
    return tl.where(scale == 0.0, 1.0, scale)


@triton.jit
def write(
    q, k, v, cos, sin, k_pages, v_pages, k_scale, v_scale, slots, q_token, q_head, k_token, k_head, v_token, v_head,
    angle_token, k_page, k_page_head, k_place, v_page, v_page_head, v_place, ks_page, ks_head, vs_page, vs_head,
    HQ: tl.constexpr, HKV: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, HALF: tl.constexpr,
    HALF_PAD: tl.constexpr, REST_PAD: tl.constexpr, DV_PAD: tl.constexpr, PAGE: tl.constexpr, BLOCK: tl.constexpr,
    Q_BLOCKS: tl.constexpr, SCALED: tl.constexpr, LIMIT: tl.constexpr, INT8: tl.constexpr,
):  # fmt: skip
    """Grid (tokens, Q_BLOCKS and blocks of key heads). HALF of 0: nothing is turned."""
    token = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    half = tl.arange(0, HALF_PAD)
    if HALF > 0:
        inside = half < HALF
        cos_low = tl.load(cos + token * angle_token + half, mask=inside, other=0.0).to(tl.float32)[None, :]
        cos_high = tl.load(cos + token * angle_token + HALF + half, mask=inside, other=0.0).to(tl.float32)[None, :]
        sin_low = tl.load(sin + token * angle_token + half, mask=inside, other=0.0).to(tl.float32)[None, :]
        sin_high = tl.load(sin + token * angle_token + HALF + half, mask=inside, other=0.0).to(tl.float32)[None, :]
    if Q_BLOCKS > 0:  # noqa: SIM102 - known when compiled: there is no q
        if block < Q_BLOCKS:
            head = block * BLOCK + tl.arange(0, BLOCK)
            kept = (head < HQ)[:, None] & (half < HALF)[None, :]
            queries = q + (token * q_token + head * q_head)[:, None] + half[None, :]
            low = tl.load(queries, mask=kept, other=0.0).to(tl.float32)
            high = tl.load(queries + HALF, mask=kept, other=0.0).to(tl.float32)
            tl.store(queries, (low * cos_low - high * sin_low).to(q.dtype.element_ty), mask=kept)
            tl.store(queries + HALF, (high * cos_high + low * sin_high).to(q.dtype.element_ty), mask=kept)
            return
    head = (block - Q_BLOCKS) * BLOCK + tl.arange(0, BLOCK)
    mine = head < HKV
    kept = mine[:, None] & (half < HALF)[None, :]
    keys = k + token * k_token + (head * k_head)[:, None]
    if HALF > 0:
        low = tl.load(keys + half[None, :], mask=kept, other=0.0).to(tl.float32)
        high = tl.load(keys + HALF + half[None, :], mask=kept, other=0.0).to(tl.float32)
        turned_low = (low * cos_low - high * sin_low).to(k.dtype.element_ty)
        turned_high = (high * cos_high + low * sin_high).to(k.dtype.element_ty)
    slot = tl.load(slots + token)
    page = slot // PAGE
    place = slot % PAGE
    to_keys = (page * k_page + place * k_place + head * k_page_head)[:, None]
    to_values = (page * v_page + place * v_place + head * v_page_head)[:, None]
    dv = tl.arange(0, DV_PAD)
    all_values = mine[:, None] & (dv < DV)[None, :]
    values = v + (token * v_token + head * v_head)[:, None] + dv[None, :]
    value = tl.load(values, mask=all_values, other=0.0).to(tl.float32)
    rest = 2 * HALF + tl.arange(0, REST_PAD)
    others = mine[:, None] & (rest < D)[None, :]
    key = tl.load(keys + rest[None, :], mask=others, other=0.0).to(tl.float32)
    shared_key = mine
    shared_value = mine
    if SCALED:
        most = _most(key)
        if HALF > 0:
            most = tl.maximum(most, _most(turned_low.to(tl.float32)))
            most = tl.maximum(most, _most(turned_high.to(tl.float32)))
        shared_key = _shared(most, k_scale, page * ks_page + head * ks_head + place, mine, LIMIT)
        shared_value = _shared(_most(value), v_scale, page * vs_page + head * vs_head + place, mine, LIMIT)
    if HALF > 0:
        there = to_keys + half[None, :]
        _put(turned_low.to(tl.float32), k_pages, there, kept, shared_key, SCALED, INT8)
        _put(turned_high.to(tl.float32), k_pages, there + HALF, kept, shared_key, SCALED, INT8)
    if 2 * HALF < D:
        _put(key, k_pages, to_keys + rest[None, :], others, shared_key, SCALED, INT8)
    _put(value, v_pages, to_values + dv[None, :], all_values, shared_value, SCALED, INT8)


class Pages(NamedTuple):
    """Where keys and values go."""

    k: Tensor
    v: Tensor
    slots: Tensor
    key_scale: Tensor | None
    value_scale: Tensor | None


def write_kv(
    k: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, slots: Tensor, key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
) -> None:  # fmt: skip
    """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
    _launch("write_kv", None, k, None, v, Pages(k_pages, v_pages, slots, key_scale, value_scale))


def rope_write(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, slots: Tensor,
    key_scale: Tensor | None = None, value_scale: Tensor | None = None,
) -> None:  # fmt: skip
    """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
    _launch("rope_write", q, k, (cos, sin), v, Pages(k_pages, v_pages, slots, key_scale, value_scale))


def head_block(width: int, heads: int) -> int:
    """Heads of a program: so many that it has PROGRAM_ELEMENTS, and no more than there are."""
    return min(max(1, PROGRAM_ELEMENTS // power_of_2(width)), power_of_2(heads))


def constants(
    heads: tuple[int, int], widths: tuple[int, int], turned: int, page_tokens: int, pages: torch.dtype
) -> dict[str, Any]:
    """What `write` is compiled for: query and key heads, widths of keys and values, how many elements are turned, and
    the tokens and dtype of pages.
    """
    block, scaled = head_block(max(widths), max(heads)), pages in LIMITS
    return {
        "HQ": heads[0], "HKV": heads[1], "D": widths[0], "DV": widths[1], "HALF": turned // 2,
        "HALF_PAD": power_of_2(turned // 2), "REST_PAD": power_of_2(widths[0] - turned), "PAGE": page_tokens,
        "DV_PAD": power_of_2(widths[1]), "BLOCK": block, "Q_BLOCKS": cdiv(heads[0], block), "SCALED": scaled,
        "LIMIT": LIMITS[pages] if scaled else 1.0, "INT8": pages == torch.int8,
    }  # fmt: skip


def _launch(op: str, q: Tensor | None, k: Tensor, angles: tuple[Tensor, Tensor] | None, v: Tensor, to: Pages) -> None:
    tokens, kv_heads, width = k.shape
    cos, sin = angles or (None, None)
    turned = 0 if cos is None else cos.shape[1]
    no_gradient(op, q, k, v)
    if (to.k.dtype in LIMITS) != (to.key_scale is not None) or (to.v.dtype in LIMITS) != (to.value_scale is not None):
        raise mismatch(op, "key_scale", to.key_scale, f"scales with pages of {', '.join(map(str, LIMITS))} alone")
    if turned % 2 or turned > width:
        raise mismatch(op, "cos", turned, f"an even number of at most {width} angles")
    for name, tensor in {"q": q, "k": k, "v": v, "cos": cos, "sin": sin, "k_pages": to.k, "v_pages": to.v}.items():
        if tensor is not None and tensor.stride(-1) != 1:
            raise mismatch(op, name, tensor.stride(), "a dense last dimension")
    if not tokens:
        return
    heads = 0 if q is None else q.shape[1], kv_heads
    chosen = constants(heads, (width, v.shape[2]), turned, to.k.shape[2], to.k.dtype)
    write[(tokens, chosen["Q_BLOCKS"] + cdiv(kv_heads, chosen["BLOCK"]))](
        q, k, v, cos, sin, to.k, to.v, to.key_scale, to.value_scale, to.slots, *_strides(q, 2), *_strides(k, 2),
        *_strides(v, 2), *_strides(cos, 1), *_strides(to.k, 3), *_strides(to.v, 3), *_strides(to.key_scale, 2),
        *_strides(to.value_scale, 2), **chosen,
    )  # fmt: skip


def _strides(tensor: Tensor | None, count: int) -> tuple[int, ...]:
    return (0,) * count if tensor is None else tensor.stride()[:count]


def register(table: OpTable) -> None:
    """Add both ops."""
    for op in (write_kv, rope_write):
        table.register(op.__name__, "triton", op, supports)


def _variants() -> Iterator[Variant]:
    """32 query and 8 key heads, 128 wide."""
    kinds = {"bf16": torch.bfloat16, "i8": torch.int8, "fp8e4nv": torch.float8_e4m3fn}
    for name, dtype, pages in (
        ("rope_write bfloat16", "bf16", "bf16"), ("rope_write int8", "bf16", "i8"),
        ("rope_write float8", "bf16", "fp8e4nv"), ("write_kv bfloat16", "bf16", "bf16"),
    ):  # fmt: skip
        turned, queries = (0, 0) if name.startswith("write") else (128, 32)
        chosen = constants((queries, 8), (128, 128), turned, 16, kinds[pages])
        chosen |= {} if turned else dict.fromkeys(("q", "cos", "sin"))
        chosen |= {} if chosen["SCALED"] else dict.fromkeys(("k_scale", "v_scale"))
        types = dict.fromkeys(("q", "k", "v", "cos", "sin"), f"*{dtype}")
        types |= dict.fromkeys(("k_pages", "v_pages"), f"*{pages}")
        types |= {"k_scale": "*fp32", "v_scale": "*fp32", "slots": "*i64"}
        signature = {argument: types.get(argument, "i32:16") for argument in write.arg_names if argument not in chosen}
        yield Variant(name, write, signature, chosen)


VARIANTS: Sequence[Variant] = tuple(_variants())
