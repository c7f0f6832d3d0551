"""Norms of rows, with the residual added before where there is one; see `reference_layers`.

    rms_norm:    out = x / sqrt(mean(x^2) + eps) * w            (w or 1 + w, scaled before or after rounding)
    layer_norm:  out = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * w + b
    add_...:     the same of x + residual, rounded to its dtype, which is written as well
    ..._float8:  the norm of each row as e4m3 numbers and a scale, for the products that read it; see `ops.float8`

A program holds whole rows in registers, so that variance is taken from the mean and not from a difference of sums: one
row of a hidden size, or several of a head's. All is added up in float32 in a fixed order. Rows may lie apart, as the
heads of a merged product of query, key and value do; answers are dense.

Bound: bytes. (2 W) itemsize for each row, (4 W) with the residual (33 KiB for a row of 4096 in bfloat16, 1 us for 64
rows at 2.2 TB/s, where the launch takes longer); 3 W for `add`. Rows of e4m3 are W instead of W itemsize, and save what
rounding them in a pass of its own would read and write. Weights are read once a program and stay in L2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..checks import mismatch, no_gradient
from ..float8 import FILLED, Float8Rows, filled, room_for
from ..table import OpTable
from .float8 import rounded_rows
from .house import cdiv, power_of_2, served
from .rows import rows_of
from .variants import Variant

ADDED = 1024
"""Elements that one program of `add` adds."""
WIDEST = 32768
"""Longer rows do not fit in the registers of a program."""


class Config(NamedTuple):
    """Rows of a program, its width, and its warps."""

    rows: int
    block: int
    warps: int


def select_config(count: int, width: int) -> Config:
    """For `count` rows of `width`: 16 elements a thread; short rows share a program once there are enough of them."""
    block = power_of_2(width)
    rows = max(1, 1024 // block) if count >= 1024 else 1
    return Config(rows, block, min(16, max(1, rows * block // 512)))


@triton.jit(do_not_specialize=["count"])
def _norm(
    x, residual, weight, bias, out, total, scale, count, width, x_inner, x_outer, x_step, r_inner, r_outer, r_step, eps,
    ADD: tl.constexpr, CENTER: tl.constexpr, UNIT_OFFSET: tl.constexpr, ROUND_FIRST: tl.constexpr,
    WEIGHT: tl.constexpr, BIAS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, FILLED: tl.constexpr,
):  # fmt: skip
    """ROWS rows of a norm. Where FILLED is not 0 the answer is e4m3, rows and columns filled up to multiples of it."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < count)[:, None] & (column < width)[None, :]
    at = row[:, None] * width + column[None, :]
    from_x = row // x_inner * x_outer + row % x_inner * x_step
    wide = tl.load(x + from_x[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
    if ADD:
        from_r = row // r_inner * r_outer + row % r_inner * r_step
        wide += tl.load(residual + from_r[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
        rounded = wide.to(total.dtype.element_ty)
        tl.store(total + at, rounded, mask=inside)
        wide = rounded.to(tl.float32)
    if CENTER:
        wide = tl.where(inside, wide - (tl.sum(wide, 1) / width)[:, None], 0.0)
    normed = wide * tl.math.rsqrt(tl.sum(wide * wide, 1) / width + eps)[:, None]
    if WEIGHT:
        scaled = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
        if UNIT_OFFSET:
            scaled += 1.0
        if ROUND_FIRST:
            normed = normed.to(x.dtype.element_ty).to(tl.float32)
            scaled = scaled.to(weight.dtype.element_ty).to(tl.float32)
        normed *= scaled[None, :]
    if BIAS:
        normed += tl.load(bias + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    if FILLED:
        normed = tl.where(inside, normed.to(x.dtype.element_ty).to(tl.float32), 0.0)
        rows, columns = (count + FILLED - 1) // FILLED * FILLED, (width + FILLED - 1) // FILLED * FILLED
        step, numbers = rounded_rows(normed, ROWS, BLOCK)
        tl.store(scale + row, step, mask=row < rows)
        kept = (row < rows)[:, None] & (column < columns)[None, :]
        tl.store(out + row[:, None] * columns + column[None, :], numbers, mask=kept)
    else:
        tl.store(out + at, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _add(x, residual, out, count, BLOCK: tl.constexpr):
    """BLOCK elements of a sum."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    wide = tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    wide += tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, wide.to(out.dtype.element_ty), mask=inside)


def add(x: Tensor, residual: Tensor) -> Tensor:
    """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
    no_gradient("add", x, residual)
    _alike("add", x, residual)
    x, residual = x.contiguous(), residual.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        _add[(cdiv(x.numel(), ADDED),)](x, residual, out, x.numel(), BLOCK=ADDED)
    return out


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, unit_offset: bool = False, round_first: bool = True
) -> Tensor:
    """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
    return _launch("rms_norm", x, None, weight, None, eps, False, unit_offset, round_first)[0]


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, unit_offset: bool = False, round_first: bool = True
) -> tuple[Tensor, Tensor]:
    """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
    return _launch("add_rms_norm", x, residual, weight, None, eps, False, unit_offset, round_first)


def rms_norm_float8(
    x: Tensor, weight: Tensor, eps: float, unit_offset: bool = False, round_first: bool = True
) -> Float8Rows:
    """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
    rows = room_for(x)
    _launch("rms_norm_float8", x, None, weight, None, eps, False, unit_offset, round_first, rows)
    return rows


def add_rms_norm_float8(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, unit_offset: bool = False, round_first: bool = True
) -> tuple[Float8Rows, Tensor]:
    """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
    rows = room_for(x)
    _, total = _launch("add_rms_norm_float8", x, residual, weight, None, eps, False, unit_offset, round_first, rows)
    return rows, total


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
    return _launch("layer_norm", x, None, weight, bias, eps, True)[0]


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
    return _launch("add_layer_norm", x, residual, weight, bias, eps, True)


def _launch(
    op: str, x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float, center: bool,
    unit_offset: bool = False, round_first: bool = False, rows: Float8Rows | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The norm and the sum; the sum is x itself where there is no residual, and the norm the numbers of `rows` where it
    is to be put there."""
    no_gradient(op, x, residual, weight, bias)
    width = x.shape[-1]
    if width > WIDEST:
        raise mismatch(op, "x", tuple(x.shape), f"rows of at most {WIDEST}")
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and (vector.shape != (width,) or vector.dtype != x.dtype or vector.stride(0) != 1):
            raise mismatch(op, name, (vector.dtype, tuple(vector.shape)), f"{x.dtype} [{width}], contiguous")
    if residual is not None:
        _alike(op, x, residual)
    given = rows_of(x)
    other = given if residual is None else rows_of(residual)
    out = x.new_empty(x.shape) if rows is None else rows.numbers.view(torch.uint8)
    total = x if residual is None else x.new_empty(x.shape)
    if x.numel():
        config = select_config(given.number, width if rows is None else filled(width))
        written = given.number if rows is None else filled(given.number)
        _norm[(cdiv(written, config.rows),)](
            given.tensor, other.tensor, weight, bias, out, total, rows and rows.scale, given.number, width,
            *given[2:], *other[2:], eps,
            ADD=residual is not None, CENTER=center, UNIT_OFFSET=unit_offset, ROUND_FIRST=round_first,
            WEIGHT=weight is not None, BIAS=bias is not None, ROWS=config.rows, BLOCK=config.block,
            FILLED=FILLED if rows else 0, num_warps=config.warps,
        )  # fmt: skip
    return out, total


def _alike(op: str, x: Tensor, residual: Tensor) -> None:
    if residual.shape != x.shape or residual.dtype != x.dtype:
        raise mismatch(op, "residual", (residual.dtype, tuple(residual.shape)), f"{x.dtype} {tuple(x.shape)}")


def register(table: OpTable) -> None:
    """Put them into a table."""
    for call in (add, rms_norm, add_rms_norm, rms_norm_float8, add_rms_norm_float8, layer_norm, add_layer_norm):
        table.register(call.__name__, "triton", call, served)


def _variants() -> Iterator[Variant]:
    for name, dtype, count, width, added, center in (
        ("add_rms_norm", "bf16", 64, 4096, True, False), ("add_rms_norm_wide", "bf16", 64, 8192, True, False),
        ("rms_norm_heads", "bf16", 2048, 128, False, False), ("add_rms_norm_fp32", "fp32", 64, 4096, True, False),
        ("add_layer_norm", "bf16", 64, 4096, True, True),
        ("add_rms_norm_unit_offset", "bf16", 64, 4096, True, False),
        ("rms_norm_float8", "bf16", 64, 4096, False, False), ("add_rms_norm_float8", "bf16", 64, 4096, True, False),
    ):  # fmt: skip
        config, offset, narrow = select_config(count, width), name.endswith("unit_offset"), name.endswith("float8")
        pointers = ("x", "residual", "weight", *(["bias"] if center else []), "out", "total")
        numbers = ("width", "x_inner", "x_outer", "x_step", "r_inner", "r_outer", "r_step")
        fixed: dict[str, object] = {**({} if center else {"bias": None}), **({} if narrow else {"scale": None})}
        if not name.endswith("heads"):  # rows of one stride: its numbers are 1 and 0
            fixed |= {"x_inner": 1, "r_inner": 1}
        kinds = dict.fromkeys(pointers, f"*{dtype}") | dict.fromkeys(numbers, "i32:16")
        kinds |= {"count": "i32", "eps": "fp32", "scale": "*fp32"} | ({"out": "*u8"} if narrow else {})
        signature = {each: kinds[each] for each in _norm.arg_names if each in kinds and each not in fixed}
        constants = {
            **fixed, "ADD": added, "CENTER": center, "UNIT_OFFSET": offset, "ROUND_FIRST": not (center or offset),
            "WEIGHT": True, "BIAS": center, "ROWS": config.rows, "BLOCK": config.block,
            "FILLED": FILLED if narrow else 0,
        }  # fmt: skip
        yield Variant(f"norms.{name}", _norm, signature, constants, config.warps)
    flat = {"x": "*bf16", "residual": "*bf16", "out": "*bf16", "count": "i32:16"}
    yield Variant("norms.add", _add, flat, {"BLOCK": ADDED})


VARIANTS: Sequence[Variant] = tuple(_variants())
