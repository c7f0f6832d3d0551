"""The two products of low-rank adapters, many adapters in one launch; see `reference_lora` for what they compute.

    hidden[t] = x[t] A[place(t)]^T          y[t] += hidden[t] B[place(t)]

A program has a block of tokens and a tile of columns. It finds the place of each of its tokens, in the slots or in the
few segments of a stack, and goes through the places between the least and the greatest: those that none of its tokens
has are passed over, the tokens of the others are one small matrix product, the rest of the block being zero. So any
order of tokens is right, tokens sorted by place read each matrix once for a block, and the launch depends on nothing
but shapes: steps of other adapters are the same CUDA graph.

A long K is cut in parts, whose sums lie in float32 [parts, T, R] and are folded in order, so that few tokens keep the
device busy and give the same bits in every run. Several B side by side (query, key and value; gate and up) are one
launch: a tile of columns finds its slice.

Bound: bytes. Each adapter that takes part is read once for each block of tokens: (K R + R N) elements, and x, hidden
and twice y for each token. At 32 rows of rank 16 on 4096 x 4096 that is 1/128 of what the layer itself reads for each
adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..checks import mismatch, no_gradient
from ..reference_lora import Segments, Slice, Slots, Where, sliced
from ..table import OpTable
from .house import cdiv, dot_dtype, power_of_2, served
from .variants import Variant

SLICES = 3
"""So many slices of y go in one launch."""

FOLDED = 1024
"""Elements of hidden that one program folds."""


STEPS = ("tokens", "start", "first", "places", "segments")
"""Numbers that differ from step to step, for which nothing is to be compiled anew."""


class Config(NamedTuple):
    """Tokens and columns of a block, the step along the summed dimension, and how many parts it is cut in."""

    tokens: int
    columns: int
    step: int
    parts: int = 1
    warps: int = 4
    stages: int = 3


def shrink_config(tokens: int, rank: int, width: int) -> Config:
    """For hidden [tokens, rank] from x [tokens, width]: few tokens need parts to keep a device busy."""
    columns = min(64, max(16, power_of_2(rank)))
    if tokens > 512:
        return Config(64, columns, 64)
    parts = min(cdiv(width, 512), 256 // max(1, cdiv(tokens, 16) * cdiv(rank, columns)))
    return Config(16, columns, 128, max(1, parts))


def expand_config(tokens: int, rank: int, itemsize: int) -> Config:
    """For y [tokens, N] from hidden [tokens, rank] of numbers of so many bytes: of 4 a thread holds half as many."""
    step = min(64, max(16, power_of_2(rank)))
    return Config(64, 128, step, warps=2 * itemsize) if tokens > 512 else Config(16, 128, step, stages=2)


@triton.jit
def _places(rows, tokens, ids, table, start, first, places, segments, BY_SLOT: tl.constexpr):
    """The place of each row of hidden in the stack; -1 for rows of nobody."""
    if BY_SLOT:
        found = tl.load(ids + rows, mask=rows < tokens, other=-1) - first
    else:
        found = tl.full(rows.shape, -1, tl.int32)
        for segment in range(segments):
            at = table + 3 * segment
            inside = (rows + start >= tl.load(at + 1)) & (rows + start < tl.load(at + 2))
            found = tl.where(inside, tl.load(at).to(tl.int32), found)
    return tl.where((rows < tokens) & (found >= 0) & (found < places), found, -1)


@triton.jit(do_not_specialize=STEPS)
def _shrink(
    x, a, out, ids, table, tokens, start, width, part, rank, first, places, segments, x_row, a_place, a_row, out_part,
    BY_SLOT: tl.constexpr, DOT: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """One part of the sums of a tile [TOKENS, COLUMNS] of hidden."""
    rows = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    place = _places(rows, tokens, ids, table, start, first, places, segments, BY_SLOT)
    begin = tl.program_id(2) * part
    end = tl.minimum(begin + part, width)
    sums = tl.zeros((TOKENS, COLUMNS), tl.float32)
    x_rows = x + (rows + start).to(tl.int64)[:, None] * x_row
    for number in range(tl.min(tl.where(place < 0, places, place), 0), tl.max(place, 0) + 1):
        own = place == number
        if tl.sum(own.to(tl.int32), 0) > 0:
            a_rows = a + number * a_place + columns[None, :] * a_row
            for at in range(begin, end, STEP):
                k = at + tl.arange(0, STEP)
                given = tl.load(x_rows + k[None, :], mask=own[:, None] & (k < end)[None, :], other=0.0)
                own_a = tl.load(a_rows + k[:, None], mask=(columns < rank)[None, :] & (k < end)[:, None], other=0.0)
                sums = tl.dot(given.to(DOT), own_a.to(DOT), sums, input_precision="ieee")
    out_rows = out + tl.program_id(2).to(tl.int64) * out_part + rows.to(tl.int64)[:, None] * rank
    kept = (rows < tokens)[:, None] & (columns < rank)[None, :]
    tl.store(out_rows + columns[None, :], sums.to(out.dtype.element_ty), mask=kept)


@triton.jit
def _fold(parts, out, count, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """The sums of the parts [PARTS, count], in order."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(PARTS):
        total += tl.load(parts + part * count + at, mask=at < count, other=0.0)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=at < count)


@triton.jit(do_not_specialize=STEPS)
def _expand(
    y, hidden, b, ids, table, tokens, start, rank, first, places, segments, y_row, hidden_row, b_place, b_row,
    start0, start1, start2, width0, width1, width2,
    BY_SLOT: tl.constexpr, DOT: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Adds to a tile [TOKENS, COLUMNS] of one slice of y."""
    rows = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    tile = tl.program_id(1)
    tiles0 = (width0 + COLUMNS - 1) // COLUMNS
    tiles1 = (width1 + COLUMNS - 1) // COLUMNS
    second, third = tile >= tiles0, tile >= tiles0 + tiles1
    into = tl.where(third, start2, tl.where(second, start1, start0))
    width = tl.where(third, width2, tl.where(second, width1, width0))
    before = tl.where(third, width0 + width1, tl.where(second, width0, 0))
    slice_rank = rank * (second.to(tl.int32) + third.to(tl.int32))
    tile -= tl.where(third, tiles0 + tiles1, tl.where(second, tiles0, 0))
    columns = tile * COLUMNS + tl.arange(0, COLUMNS)
    place = _places(rows, tokens, ids, table, start, first, places, segments, BY_SLOT)
    sums = tl.zeros((TOKENS, COLUMNS), tl.float32)
    hidden_rows = hidden + rows.to(tl.int64)[:, None] * hidden_row + slice_rank
    for number in range(tl.min(tl.where(place < 0, places, place), 0), tl.max(place, 0) + 1):
        own = place == number
        if tl.sum(own.to(tl.int32), 0) > 0:
            own_b = b + number * b_place + before + columns[None, :]
            for at in range(0, rank, STEP):
                r = at + tl.arange(0, STEP)
                given = tl.load(hidden_rows + r[None, :], mask=own[:, None] & (r < rank)[None, :], other=0.0)
                matrix = tl.load(
                    own_b + r[:, None] * b_row, mask=(r < rank)[:, None] & (columns < width)[None, :], other=0.0
                )
                sums = tl.dot(given.to(DOT), matrix.to(DOT), sums, input_precision="ieee")
    y_at = y + (rows + start).to(tl.int64)[:, None] * y_row + into + columns[None, :]
    kept = (place >= 0)[:, None] & (columns < width)[None, :]
    before_y = tl.load(y_at, mask=kept, other=0.0).to(tl.float32)
    tl.store(y_at, (before_y + sums).to(y.dtype.element_ty), mask=kept)


def lora_shrink(x: Tensor, a: Tensor, where: Where) -> Tensor:
    """See the reference. Raises BadArgument for tensors that do not fit, NotSupported under grad."""
    _check("lora_shrink", x, a, a.shape[2], where)
    tokens, start = _range(where, x.shape[0])
    rank, width = a.shape[1], a.shape[2]
    config = shrink_config(tokens, rank, width)
    hidden = x.new_empty(tokens, rank)
    out = hidden if config.parts == 1 else x.new_empty(config.parts, tokens, rank, dtype=torch.float32)
    part = cdiv(cdiv(width, config.parts), config.step) * config.step
    grid = cdiv(tokens, config.tokens), cdiv(rank, config.columns), config.parts
    if tokens and rank:
        _shrink[grid](
            x, a, out, *_lookup(where), tokens, start, width, part, rank, *_stack(where, a), x.stride(0), a.stride(0),
            a.stride(1), tokens * rank, **_constants(config, x, where),
        )  # fmt: skip
        if config.parts > 1:
            _fold[(cdiv(tokens * rank, FOLDED),)](out, hidden, tokens * rank, PARTS=config.parts, BLOCK=FOLDED)
    return hidden


def lora_expand(y: Tensor, hidden: Tensor, b: Tensor, where: Where, slices: Sequence[Slice] = ()) -> None:
    """See the reference. Raises BadArgument for tensors that do not fit, NotSupported under grad."""
    wanted = b.shape[1] * max(1, len(slices))
    _check("lora_expand", hidden, b, wanted, where)
    columns = sum(width for _, width in slices) if slices else y.shape[1]
    if y.dtype != b.dtype or y.stride(1) != 1 or columns != b.shape[2]:
        raise mismatch("lora_expand", "y", (y.dtype, tuple(y.shape), y.stride()), f"{b.dtype} [T, {b.shape[2]}]")
    if len(slices) > SLICES:
        for own, part, matrix in sliced(y, hidden, b, slices):
            lora_expand(own, part, matrix, where)
        return
    tokens, start = _range(where, y.shape[0])
    config = expand_config(tokens, b.shape[1], b.itemsize)
    parts = [*(slices or ((0, y.shape[1]),)), *[(0, 0)] * SLICES][:SLICES]
    grid = cdiv(tokens, config.tokens), sum(cdiv(width, config.columns) for _, width in parts)
    if tokens and grid[1]:
        _expand[grid](
            y, hidden, b, *_lookup(where), tokens, start, b.shape[1], *_stack(where, b), y.stride(0), hidden.stride(0),
            b.stride(0), b.stride(1), *(first for first, _ in parts), *(width for _, width in parts),
            **_constants(config, y, where),
        )  # fmt: skip


def _range(where: Where, tokens: int) -> tuple[int, int]:
    """How many rows hidden has, and which token is the first."""
    if isinstance(where, Slots):
        return tokens, 0
    return min(where.end, tokens) - where.start, where.start


def _lookup(where: Where) -> tuple[Tensor, Tensor]:
    """What the places are found in, for both ways; one of them is not read."""
    return (where.ids, where.ids) if isinstance(where, Slots) else (where.table, where.table)


def _stack(where: Where, stack: Tensor) -> tuple[int, int, int]:
    """The slot of the first place, the places, and the segments."""
    if isinstance(where, Slots):
        return where.first, stack.shape[0], 0
    return 0, stack.shape[0], where.table.shape[0]


def _constants(config: Config, like: Tensor, where: Where) -> dict[str, Any]:
    return {
        "BY_SLOT": isinstance(where, Slots), "DOT": dot_dtype(like.dtype), "TOKENS": config.tokens,
        "COLUMNS": config.columns, "STEP": config.step, "num_warps": config.warps, "num_stages": config.stages,
    }  # fmt: skip


def _check(op: str, given: Tensor, stack: Tensor, width: int, where: Where) -> None:
    no_gradient(op, given, stack)
    if given.dtype != stack.dtype or given.shape[1] != width:
        got = given.dtype, stack.dtype, given.shape[1]
        raise mismatch(op, "tensors", got, f"the same dtype, and {width} columns")
    if given.stride(1) != 1 or stack.stride(2) != 1:
        raise mismatch(op, "strides", (given.stride(), stack.stride()), "dense in the last dimension")
    if isinstance(where, Segments) and stack.shape[0] < where.places:
        raise mismatch(op, "stack", tuple(stack.shape), f"at least {where.places} places")
    if isinstance(where, Slots) and where.ids.shape[0] < given.shape[0]:
        raise mismatch(op, "ids", tuple(where.ids.shape), f"one for each of {given.shape[0]} tokens")


def register(table: OpTable) -> None:
    """Add both ops."""
    for call in (lora_shrink, lora_expand):
        table.register(call.__name__, "triton", call, served)


def _variant(
    name: str, kernel: Any, config: Config, kind: str, constants: dict[str, Any], pointers: str, numbers: str
) -> Variant:
    """Numbers are divisible by 16 but for those that differ from step to step."""
    signature = dict.fromkeys(pointers.split(), f"*{kind}")
    signature |= {"ids": "*i32", "table": "*i64"} if "BY_SLOT" in constants else {}
    signature |= {number: "i32" if number in STEPS else "i32:16" for number in numbers.split()}
    return Variant(name, kernel, signature, constants, config.warps, config.stages)


def _variants() -> list[Variant]:
    """Rank 16 on 4096, for query, key and value: 32 rows by slots, 1024 tokens by segments."""
    found = []
    for kind, dot, tokens in (
        ("bf16", tl.bfloat16, 32), ("bf16", tl.bfloat16, 1024), ("fp16", tl.float16, 32), ("fp32", tl.float32, 1024)
    ):  # fmt: skip
        for kernel, config, pointers, numbers in (
            (_shrink, shrink_config(tokens, 48, 4096), "x a out",
             "tokens start width part rank first places segments x_row a_place a_row out_part"),
            (_expand, expand_config(tokens, 16, 4 if kind == "fp32" else 2), "y hidden b",
             "tokens start rank first places segments y_row hidden_row b_place b_row start0 start1 start2 "
             "width0 width1 width2"),
        ):  # fmt: skip
            constants = {
                "BY_SLOT": tokens == 32, "DOT": dot, "TOKENS": config.tokens, "COLUMNS": config.columns,
                "STEP": config.step,
            }  # fmt: skip
            name = f"lora{kernel.__name__} {kind}, {tokens} tokens"
            variant = _variant(name, kernel, config, kind, constants, pointers, numbers)
            if config.parts > 1:
                variant = replace(variant, signature={**variant.signature, "out": "*fp32"})
            found.append(variant)
    constants = {"PARTS": shrink_config(32, 48, 4096).parts, "BLOCK": FOLDED}
    signature = {"parts": "*fp32", "out": "*bf16", "count": "i32:16"}
    return [*found, Variant("lora_fold bf16", _fold, signature, constants)]


VARIANTS: Sequence[Variant] = tuple(_variants())
