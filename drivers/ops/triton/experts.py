"""A mixture of experts; see `reference_experts` for what it computes.

    out[t] = sum_k w[t, k] D[e] h[t, k],   h[t, k] = act(alpha g) / alpha * (u + shift)
    [g, u] = G[e] x[t],   e = chosen[t, k]             G stacked gate and up [E, 2 I, H], D down [E, H, I], any strides

An entry is one token at one of the experts that it chose. Four launches, none of which depends on the data:

1. `_sort`: entries in the order of their experts, each expert's filled up to whole blocks, and the expert of each
   block. A program for each expert counts the entries of all, so that it knows where its own begin, and writes these in
   their order. No atomics: the order is the same in every run.
2. `_gate_up`: a block of entries times a tile of gate and of up at once, and what is between: hidden [rows, I].
3. `_down`: hidden times a tile of down, weighted, back to the entry's own place: parts [T K, H].
4. `_combine`: the parts of each token, added in their order in float32.

There are at most min(T K, E) + (T K - min(T K, E)) // BLOCK blocks; those that are not needed end at once.

Bound: bytes while an expert has few entries (all weights of the experts that were chosen, 6 H I bytes each in half
precision), else 6 T K H I floating operations. Blocks of few rows read each weight once; with many, neighbouring
programs share a tile of weights in groups of blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..checks import mismatch, no_gradient
from ..reference_experts import Gate
from ..table import OpTable
from .gates import KINDS, activate
from .house import cdiv, dot_dtype, power_of_2, served
from .variants import Variant

CHUNK = 4096
"""The most entries that a program of `_sort` looks at at a time."""

COMBINED = 1024
"""Columns of one token that a program of `_combine` adds up."""


class Config(NamedTuple):
    """Rows and columns of a block, the step along the summed dimension, blocks that share a tile of weights."""

    rows: int
    columns: int
    step: int
    group: int = 1
    warps: int = 4
    stages: int = 4


def select_config(entries: int, experts: int, size: int = 2) -> Config:
    """By how many entries an expert has on average: few are bound by the bytes of weights, which want many programs.

    Elements of `size` bytes: those of float32 fill the registers sooner.
    """
    each = entries / experts
    if each <= 16:
        return Config(16, 32, 128)
    if each <= 64:
        return Config(32, 64, 64, 4)
    if size > 2:
        return Config(32, 64, 32, 8, stages=3)
    return Config(64, 64, 64, 8, stages=3)


def blocks_of(entries: int, experts: int, rows: int) -> int:
    """The most blocks that so many entries can need: an expert that has any fills its last block up."""
    chosen = min(entries, experts)
    return chosen + (entries - chosen) // rows


@triton.jit(do_not_specialize=("entries", "blocks"))
def _sort(chosen, order, owners, entries, blocks, experts, ROWS: tl.constexpr, BINS: tl.constexpr, SIZE: tl.constexpr):
    """Writes the entries of one expert and the owners of its blocks; the last expert also of the blocks of nobody."""
    own = tl.program_id(0)
    bins = tl.arange(0, BINS)
    lane = tl.arange(0, SIZE)
    counts = tl.zeros((BINS,), tl.int32)
    for at in range(0, entries, SIZE):
        ids = tl.load(chosen + at + lane, mask=at + lane < entries, other=-1)
        counts += tl.histogram(tl.where((ids >= 0) & (ids < experts), ids, experts).to(tl.int32), BINS)
    needed = tl.where(bins < experts, (counts + ROWS - 1) // ROWS, 0)
    first = tl.sum(tl.where(bins < own, needed, 0), 0)
    end = first + tl.sum(tl.where(bins == own, needed, 0), 0)
    for at in range(first, end, SIZE):
        tl.store(owners + at + lane, own, mask=at + lane < end)
    if own == experts - 1:
        for at in range(end, blocks, SIZE):
            tl.store(owners + at + lane, -1, mask=at + lane < blocks)
    row = first * ROWS
    for at in range(0, entries, SIZE):
        ids = tl.load(chosen + at + lane, mask=at + lane < entries, other=-1)
        mine = (ids == own).to(tl.int32)
        tl.store(order + row + tl.cumsum(mine, 0) - 1, at + lane, mask=mine > 0)
        row += tl.sum(mine, 0)
    for at in range(row, end * ROWS, SIZE):
        tl.store(order + at + lane, entries, mask=at + lane < end * ROWS)


@triton.jit
def _tile(blocks, tiles, GROUP: tl.constexpr):
    """The block and the tile of columns of a program: so many blocks share a tile before the next one's turn."""
    program = tl.program_id(0)
    group = program // (GROUP * tiles)
    size = tl.minimum(blocks - group * GROUP, GROUP)
    inside = program - group * GROUP * tiles
    return group * GROUP + inside % size, inside // size


@triton.jit(do_not_specialize=("entries", "blocks"))
def _gate_up(
    x, gate_up, bias, hidden, order, owners, entries, blocks, most, width, ins, x_row, w_expert, w_row, w_column,
    bias_expert, alpha, limit, shift,
    KIND: tl.constexpr, LIMITED: tl.constexpr, INTERLEAVED: tl.constexpr, DOT: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, STEP: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A tile [ROWS, COLUMNS] of hidden [rows, width]."""
    block, tile = _tile(blocks, (width + COLUMNS - 1) // COLUMNS, GROUP)
    expert = tl.load(owners + block)
    if expert >= 0:
        rows = block * ROWS + tl.arange(0, ROWS)
        entry = tl.load(order + rows)
        columns = tile * COLUMNS + tl.arange(0, COLUMNS)
        valid = columns < width
        gates = columns * 2 if INTERLEAVED else columns
        apart = 1 if INTERLEAVED else width
        x_rows = x + (entry // most).to(tl.int64)[:, None] * x_row
        weights = gate_up + expert.to(tl.int64) * w_expert + gates[None, :] * w_row
        up_weights = weights + apart * w_row
        gate = tl.zeros((ROWS, COLUMNS), tl.float32)
        up = tl.zeros((ROWS, COLUMNS), tl.float32)
        for at in range(0, ins, STEP):
            k = at + tl.arange(0, STEP)
            given = tl.load(x_rows + k[None, :], mask=(entry < entries)[:, None] & (k < ins)[None, :], other=0.0)
            inside = (k < ins)[:, None] & valid[None, :]
            offset = k[:, None] * w_column
            gate = tl.dot(
                given.to(DOT), tl.load(weights + offset, mask=inside, other=0.0).to(DOT), gate, input_precision="ieee"
            )
            up = tl.dot(
                given.to(DOT), tl.load(up_weights + offset, mask=inside, other=0.0).to(DOT), up, input_precision="ieee"
            )
        if bias is not None:
            biases = bias + expert * bias_expert + gates
            gate += tl.load(biases, mask=valid, other=0.0).to(tl.float32)[None, :]
            up += tl.load(biases + apart, mask=valid, other=0.0).to(tl.float32)[None, :]
        if LIMITED:
            gate = tl.minimum(gate, limit)
            up = tl.minimum(tl.maximum(up, -limit), limit)
        made = activate(gate * alpha, KIND) / alpha * (up + shift)
        at_hidden = hidden + rows.to(tl.int64)[:, None] * width + columns[None, :]
        tl.store(at_hidden, made.to(hidden.dtype.element_ty), mask=valid[None, :])


@triton.jit(do_not_specialize=("entries", "blocks"))
def _down(
    hidden, down, bias, weights, parts, order, owners, entries, blocks, width, ins, w_expert, w_row, w_column,
    bias_expert,
    DOT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A tile [ROWS, COLUMNS] of parts [entries, width], each row where its entry belongs."""
    block, tile = _tile(blocks, (width + COLUMNS - 1) // COLUMNS, GROUP)
    expert = tl.load(owners + block)
    if expert >= 0:
        rows = block * ROWS + tl.arange(0, ROWS)
        entry = tl.load(order + rows)
        columns = tile * COLUMNS + tl.arange(0, COLUMNS)
        valid = columns < width
        stack = down + expert.to(tl.int64) * w_expert + columns[None, :] * w_row
        sums = tl.zeros((ROWS, COLUMNS), tl.float32)
        for at in range(0, ins, STEP):
            k = at + tl.arange(0, STEP)
            given = tl.load(hidden + rows.to(tl.int64)[:, None] * ins + k[None, :], mask=(k < ins)[None, :], other=0.0)
            matrix = tl.load(stack + k[:, None] * w_column, mask=(k < ins)[:, None] & valid[None, :], other=0.0)
            sums = tl.dot(given.to(DOT), matrix.to(DOT), sums, input_precision="ieee")
        if bias is not None:
            sums += tl.load(bias + expert * bias_expert + columns, mask=valid, other=0.0).to(tl.float32)[None, :]
        sums *= tl.load(weights + entry, mask=entry < entries, other=0.0).to(tl.float32)[:, None]
        at_parts = parts + entry.to(tl.int64)[:, None] * width + columns[None, :]
        tl.store(at_parts, sums.to(parts.dtype.element_ty), mask=(entry < entries)[:, None] & valid[None, :])


@triton.jit
def _combine(parts, chosen, out, experts, width, MOST: tl.constexpr, COLUMNS: tl.constexpr):
    """The sum of the parts of one token; those of experts that are not here were never written."""
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    sums = tl.zeros((COLUMNS,), tl.float32)
    for k in range(MOST):
        entry = token * MOST + k
        expert = tl.load(chosen + entry)
        here = (columns < width) & (expert >= 0) & (expert < experts)
        sums += tl.load(parts + entry * width + columns, mask=here, other=0.0).to(tl.float32)
    tl.store(out + token * width + columns, sums.to(out.dtype.element_ty), mask=columns < width)


def experts(
    x: Tensor, gate_up: Tensor, down: Tensor, chosen: Tensor, weights: Tensor, gate: Gate,
    gate_up_bias: Tensor | None = None, down_bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """See the reference. Raises BadArgument for tensors that do not fit, NotSupported under grad."""
    no_gradient("experts", x, gate_up, down)
    _check(x, gate_up, down, chosen, weights, (gate_up_bias, down_bias))
    (count, width, inner), (tokens, most) = down.shape, chosen.shape
    entries = tokens * most
    out = x.new_empty(tokens, width)
    if not (entries and count):
        return out.zero_()
    config = select_config(entries, count, x.element_size())
    blocks = blocks_of(entries, count, config.rows)
    chosen, weights = chosen.contiguous(), weights.contiguous()
    order = torch.empty(blocks * config.rows, dtype=torch.int32, device=x.device)
    owners = torch.empty(blocks, dtype=torch.int32, device=x.device)
    hidden, parts = x.new_empty(blocks * config.rows, inner), x.new_empty(entries, width)
    bins, size = power_of_2(count + 1), min(CHUNK, max(128, power_of_2(entries)))
    _sort[(count,)](chosen, order, owners, entries, blocks, count, ROWS=config.rows, BINS=bins, SIZE=size)
    shared = _constants(config, x)
    _gate_up[(blocks * cdiv(inner, config.columns),)](
        x, gate_up, gate_up_bias, hidden, order, owners, entries, blocks, most, inner, x.shape[1], x.stride(0),
        *gate_up.stride(), gate_up.shape[1], gate.alpha, gate.limit, gate.shift, KIND=KINDS[f"{gate.act}_mul"],
        LIMITED=gate.limit != 0.0, INTERLEAVED=gate.interleaved, **shared,
    )  # fmt: skip
    _down[(blocks * cdiv(width, config.columns),)](
        hidden, down, down_bias, weights, parts, order, owners, entries, blocks, width, inner, *down.stride(), width,
        **shared,
    )  # fmt: skip
    columns = min(COMBINED, power_of_2(width))
    _combine[(tokens, cdiv(width, columns))](parts, chosen, out, count, width, MOST=most, COLUMNS=columns)
    return out


def _constants(config: Config, like: Tensor) -> dict[str, Any]:
    return {
        "DOT": dot_dtype(like.dtype), "ROWS": config.rows, "COLUMNS": config.columns, "STEP": config.step,
        "GROUP": config.group, "num_warps": config.warps, "num_stages": config.stages,
    }  # fmt: skip


def _check(
    x: Tensor, gate_up: Tensor, down: Tensor, chosen: Tensor, weights: Tensor, biases: tuple[Tensor | None, ...]
) -> None:
    count, width, inner = down.shape
    shapes = {
        "x": (x, (chosen.shape[0], gate_up.shape[2])), "gate_up": (gate_up, (count, 2 * inner, x.shape[1])),
        "weights": (weights, tuple(chosen.shape)),
    }  # fmt: skip
    for name, bias, size in zip(("gate_up_bias", "down_bias"), biases, (2 * inner, width), strict=True):
        if bias is not None:
            shapes[name] = bias, (count, size)
    for name, (given, want) in shapes.items():
        if tuple(given.shape) != want:
            raise mismatch("experts", name, tuple(given.shape), want)
    if not x.dtype == gate_up.dtype == down.dtype:
        raise mismatch("experts", "dtypes", (x.dtype, gate_up.dtype, down.dtype), "all the same")
    if x.stride(1) != 1 or any(bias is not None and not bias.is_contiguous() for bias in biases):
        raise mismatch("experts", "strides of x and biases", x.stride(), "dense rows")


def register(table: OpTable) -> None:
    """Add the op."""
    table.register("experts", "triton", experts, served)


def _variants() -> list[Variant]:
    """The shapes of a 30B-A3B in bfloat16: one token, 512, and 2048; and of gpt-oss in float16 and float32."""
    found = []
    for kind, dot, entries, count, plain in (
        ("bf16", tl.bfloat16, 8, 128, True), ("bf16", tl.bfloat16, 4096, 128, True),
        ("bf16", tl.bfloat16, 16384, 128, True), ("fp16", tl.float16, 128, 32, False),
        ("fp32", tl.float32, 8192, 32, False),
    ):  # fmt: skip
        config = select_config(entries, count, 4 if kind == "fp32" else 2)
        bias = {} if plain else {"bias": f"*{kind}"}
        none = {"bias": None} if plain else {}
        constants = {
            "DOT": dot, "ROWS": config.rows, "COLUMNS": config.columns, "STEP": config.step, "GROUP": config.group,
            "w_column" if plain else "w_row": 1, **none,
        }  # fmt: skip
        stack = {"w_expert": "i32:16", ("w_row" if plain else "w_column"): "i32:16", "bias_expert": "i32:16"}
        tables = {"order": "*i32", "owners": "*i32", "entries": "i32", "blocks": "i32"}
        floats = dict.fromkeys(("alpha", "limit", "shift"), "fp32")
        gate_up = {
            **dict.fromkeys(("x", "gate_up", "hidden"), f"*{kind}"), **bias, **tables, "most": "i32", "width": "i32:16",
            "ins": "i32:16", "x_row": "i32:16", **stack, **floats,
        }  # fmt: skip
        down = {
            **dict.fromkeys(("hidden", "down", "parts"), f"*{kind}"), **bias, "weights": f"*{kind}", **tables,
            "width": "i32:16", "ins": "i32:16", **stack,
        }  # fmt: skip
        gate = {"KIND": KINDS["silu_mul"], "LIMITED": not plain, "INTERLEAVED": not plain}
        name = f"{kind}, {entries} entries of {count}"
        found.append(Variant(
            f"experts_gate_up {name}", _gate_up, gate_up, {**constants, **gate}, config.warps, config.stages
        ))  # fmt: skip
        found.append(Variant(f"experts_down {name}", _down, down, constants, config.warps, config.stages))
    sort = {"chosen": "*i64", "order": "*i32", "owners": "*i32", "entries": "i32", "blocks": "i32", "experts": "i32:16"}
    found += [
        Variant(f"experts_sort {size}", _sort, sort, {"ROWS": 16, "BINS": 256, "SIZE": size}) for size in (128, CHUNK)
    ]
    combine = {"parts": "*bf16", "chosen": "*i64", "out": "*bf16", "experts": "i32:16", "width": "i32:16"}
    found.append(Variant("experts_combine bf16", _combine, combine, {"MOST": 8, "COLUMNS": COMBINED}))
    return found


VARIANTS: Sequence[Variant] = tuple(_variants())
