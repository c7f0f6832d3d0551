"""Whole numbers of 4 and 8 bits times inputs that are rounded to 8 bits for each token and group.

    y[t, n] = sum_g a[t, g] (scale[g, n] P + d[g, n] Q)
    P = sum_(k of g) q[t, k] (u[n, k] - c), Q = sum_(k of g) q[t, k]

with m the greatest size in a token's group, a = m / 127, q = x * (127 / m) rounded to nearest, ties to even, and c 8
(of 4 bits) or 128, so that u - c are whole numbers of 8 bits. d is shift + c scale where there are shifts, else 0. P
and Q are exact; they are scaled in float32, one group after the other.

Numbers that are not finite make the scale of their group none, so that they show in their token's answer.

Bound: bytes for few tokens, as of weights whose inputs stay as they are (`quantized_kernels`): K / 2 or K and 2 a group
for each output; then K and 4 a group for each token. 2 K operations for each output and token otherwise, of which
devices do twice as many as in 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..quantized import Scheme
from .float8 import size
from .house import cdiv, power_of_2
from .quantized_choice import Choice, Layer, planned
from .variants import Variant

WIDEST = 4096
"""Inputs of a token that are looked at together; where groups are not whole rows, at most 1024 are."""


class Rounded(NamedTuple):
    """Tokens in whole numbers [T, K filled up] int8, and the scale of each group of each, [T, groups] float32."""

    numbers: Tensor
    scale: Tensor


@triton.jit
def _finite(x):
    """What is not, as 0."""
    return tl.where(size(x) < float("inf"), x, 0.0)


@triton.jit
def _factors(most):
    """The scale of groups with these greatest sizes, and what their numbers are multiplied by."""
    full = tl.full(most.shape, 127.0, tl.float32)
    usual = (most > 0.0) & (most < float("inf"))
    inverse = tl.where(usual, tl.div_rn(full, tl.where(usual, most, 1.0)), 0.0)
    return tl.where(most < float("inf"), tl.div_rn(most, full), float("nan")), inverse


@triton.jit
def _nearest(x):
    """Whole numbers nearest to those of at most 127 in size."""
    return ((x + 12582912.0) - 12582912.0).to(tl.int8)


@triton.jit
def _round(x, out, scale, width, filled, groups, x_row, GROUP: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK inputs of a token, each of GROUP neighbours with one scale; all inputs where that is 0."""
    token = tl.program_id(0).to(tl.int64)
    own = x + token * x_row
    to = out + token * filled
    if GROUP:
        k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        values = tl.load(own + k, mask=k < width, other=0.0).to(tl.float32)
        parts = tl.reshape(values, (BLOCK // GROUP, GROUP))
        factor, inverse = _factors(tl.max(size(parts), 1))
        numbers = _nearest(_finite(parts) * inverse[:, None])
        tl.store(to + k, tl.reshape(numbers, (BLOCK,)), mask=k < filled)
        group = tl.program_id(1) * (BLOCK // GROUP) + tl.arange(0, BLOCK // GROUP)
        tl.store(scale + token * groups + group, factor, mask=group < groups)
    else:
        greatest = tl.zeros((1, BLOCK), tl.float32)
        for at in range(0, width, BLOCK):
            k = at + tl.arange(0, BLOCK)[None, :]
            values = tl.load(own + k, mask=k < width, other=0.0).to(tl.float32)
            greatest = tl.maximum(greatest, size(values))
        factor, inverse = _factors(tl.max(greatest, 1))
        for at in range(0, filled, BLOCK):
            k = at + tl.arange(0, BLOCK)[None, :]
            values = tl.load(own + k, mask=k < width, other=0.0).to(tl.float32)
            tl.store(to + k, _nearest(_finite(values) * inverse[:, None]), mask=k < filled)
        tl.store(scale + token + tl.arange(0, 1), factor)


@triton.jit
def _scaled(inner, every, factor, scale, shift, where, here, there, WIDTH: tl.constexpr):
    """What the exact sums of one group are worth: of products [OUTS, TOKENS], and of inputs [TOKENS]."""
    a = tl.load(factor, mask=here, other=0.0)
    scales = tl.load(scale + where, mask=there, other=0.0).to(tl.float32)
    worth = inner.to(tl.float32) * scales[:, None]
    if shift is not None:
        shifts = tl.load(shift + where, mask=there, other=0.0).to(tl.float32)
        worth += (shifts + scales * (1 << (WIDTH - 1)))[:, None] * every.to(tl.float32)[None, :]
    return worth * a[None, :]


@triton.jit(do_not_specialize=["tokens"])
def gemm(
    x, factor, numbers, scale, shift, bias, out, tokens, outs, row, part, filled, groups, out_part,
    WIDTH: tl.constexpr, GROUP: tl.constexpr, OUTS: tl.constexpr, TOKENS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """A tile [OUTS, TOKENS] of the transposed answer, as `quantized_kernels.gemm` makes it. A step takes STEP bytes of
    each row, whose inputs (of a half) are of one group."""
    n = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    begin = tl.program_id(2) * part
    end = tl.minimum(begin + part, row)
    byte = tl.arange(0, STEP)
    here, there = token < tokens, n < outs
    own = numbers + n.to(tl.int64)[:, None] * row + byte[None, :]
    own_x = x + token.to(tl.int64)[None, :] * filled + byte[:, None]
    own_factor = factor + token.to(tl.int64) * groups
    sums = tl.zeros((OUTS, TOKENS), tl.float32)
    inner = tl.zeros((OUTS, TOKENS), tl.int32)
    every = tl.zeros((TOKENS,), tl.int32)
    BLOCK: tl.constexpr = 64 if WIDTH == 4 else STEP
    for block in range(begin, end, BLOCK):
        for step in tl.static_range(0, BLOCK, STEP):
            given = tl.load(own + block + step, mask=there[:, None], other=0)
            for half in tl.static_range(8 // WIDTH):
                if WIDTH == 4:
                    whole = (given >> 4 if half else given & 15).to(tl.int8) - 8
                else:
                    whole = (given ^ 128).to(tl.int8, bitcast=True)
                first = block + step if WIDTH == 8 else block * 2 + step + half * 64
                values = tl.load(own_x + first, mask=here[None, :], other=0)
                inner = tl.dot(whole, values, inner, out_dtype=tl.int32)
                if shift is not None:
                    every += tl.sum(values.to(tl.int32), 0)
                if GROUP and (half == 8 // WIDTH - 1 or GROUP < 128):
                    group = first // GROUP
                    where = group * outs + n
                    sums += _scaled(inner, every, own_factor + group, scale, shift, where, here, there, WIDTH)
                    inner = tl.zeros((OUTS, TOKENS), tl.int32)
                    every = tl.zeros((TOKENS,), tl.int32)
    if GROUP == 0:
        sums = _scaled(inner, every, own_factor, scale, shift, n, here, there, WIDTH)
    if bias is not None:
        sums += tl.load(bias + n, mask=there, other=0.0).to(tl.float32)[:, None]
    at_out = out + tl.program_id(2).to(tl.int64) * out_part + token.to(tl.int64)[None, :] * outs + n[:, None]
    tl.store(at_out, sums.to(out.dtype.element_ty), mask=there[:, None] & here[None, :])


def rounded(x: Tensor, filled: int, group: int) -> Rounded:
    """Tokens x [T, K] whose last dimension is dense; with `filled` inputs, those after K are 0."""
    tokens, width = x.shape
    groups = cdiv(filled, group) if group else 1
    made = Rounded(
        torch.empty(tokens, filled, dtype=torch.int8, device=x.device),
        torch.empty(tokens, groups, dtype=torch.float32, device=x.device),
    )
    block = min(1024 if group else WIDEST, power_of_2(filled))
    grid = tokens, cdiv(filled, block) if group else 1
    _round[grid](
        x, *made, width, filled, groups, x.stride(0), GROUP=group, BLOCK=block, num_warps=max(1, min(8, block // 512))
    )
    return made


def constants(scheme: Scheme, choice: Choice) -> dict[str, Any]:
    """Of the kernel that multiplies."""
    shared = {"WIDTH": scheme.width, "GROUP": scheme.group}
    return {**shared, "OUTS": choice.outs, "TOKENS": choice.tokens, "STEP": choice.step}


def _variants() -> Iterator[Variant]:
    """Products of an 8B model with few and many tokens, and the rounding of their inputs."""
    outs, ins = 14336, 4096
    for scheme, tokens in (
        *((Scheme(8, 128), tokens) for tokens in (1, 64, 256)), (Scheme(8, 0), 16), (Scheme(4, 128), 16),
        (Scheme(4, 32, shift=True), 16),
    ):  # fmt: skip
        layer = Layer(outs, scheme.numbers_of(1, ins)[0][1], scheme.width, scheme.group, "int8")
        choice = planned(layer, tokens)
        whole = constants(scheme, choice)
        types = {
            "x": "*i8", "factor": "*fp32", "numbers": "*u8", "scale": "*fp16", "shift": "*fp16", "bias": "*bf16",
            "out": "*fp32" if choice.parts > 1 else "*bf16", "tokens": "i32",
        }  # fmt: skip
        fixed: dict[str, Any] = {**whole, **({} if scheme.shift else {"shift": None})}
        fixed |= {**({"bias": None} if choice.parts > 1 else {}), **({} if scheme.group else {"groups": 1})}
        signature = {name: types.get(name, "i32:16") for name in gemm.arg_names if name not in fixed}
        told = f"int{scheme.width} group {scheme.group}{' shift' if scheme.shift else ''}, {tokens} tokens"
        yield Variant(f"int8_gemm bf16, {told}", gemm, signature, fixed, choice.warps, choice.stages)
    for group, block in ((128, 1024), (0, 4096)):
        fixed = {"GROUP": group, "BLOCK": block, **({} if group else {"groups": 1})}
        types = {"x": "*bf16", "out": "*i8", "scale": "*fp32"}
        signature = {name: types.get(name, "i32:16") for name in _round.arg_names if name not in fixed}
        yield Variant(f"int8_round bf16 group {group}", _round, signature, fixed, max(1, min(8, block // 512)))


VARIANTS: Sequence[Variant] = tuple(_variants())
