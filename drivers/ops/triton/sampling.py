"""The next token of each row; see `reference_sampling` for what is drawn.

    token = argmax over kept j of -d_j + G_j,   d_j = (max(x) - x_j) / T,   G_j = -log(-log(1 - v_j)), v from Philox

A row's tokens are cut in chunks, a program each, however many rows there are: what a row gets depends on it alone.

    peaks   the greatest logit of each chunk, and where
    front   for rows with top-k or top-p: the FRONT best of each chunk, and what the whole chunk weighs
    cut     the greatest distance d that each row keeps
    race    the winner of each chunk, of the tokens kept
    pick    the token of each row

Distances are never negative, so the bits of one, taken as an integer, order them. Top-k and top-p are thresholds in
that order, found by halving: the least one within which there are k tokens, or which weighs enough. It is looked for
among the front, a few thousand distances that stay in L1, and in the whole row only where more than the front may be
kept. Sums run in a fixed order and grow with the threshold also when rounded.

Chunks in which nothing can win are passed over, without random numbers: noise reaches from -2.9 to 22.9, so that a
token REACH behind the best one loses to it.

Bound: bytes. Each logit is read once from memory (R V itemsize: 20 us for 256 rows of 128k in bfloat16 at 3.3 TB/s)
and once or twice more from L2, by rows with top-k or top-p; 1 KiB of front is written for each of their chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..checks import mismatch, no_gradient
from ..reference_sampling import COOLEST, LARGEST, NO_TOKEN, SMALL, STREAM, UNIT
from ..table import OpTable
from .house import cdiv, power_of_2, served
from .variants import Variant

INFINITE = tl.constexpr(0x7F800000)
"""The bits of an infinite distance; all others are less."""
REACH = tl.constexpr(26.0)
_COOLEST, _LARGEST, _SMALL, _UNIT = (tl.constexpr(each) for each in (COOLEST, LARGEST, SMALL, UNIT))
_STREAM, _NO_TOKEN = tl.constexpr(STREAM), tl.constexpr(NO_TOKEN)

LEAST_CHUNK, MOST_CHUNK, FRONT = 256, 4096, 256
CUT_WARPS = 8


class Config(NamedTuple):
    """Tokens of a chunk, chunks of a row, and how many of each are its front."""

    chunk: int
    chunks: int
    front: int


def select_config(size: int) -> Config:
    """For rows of `size` logits. Not for a number of rows: their sums must not depend on it."""
    chunk = min(MOST_CHUNK, max(LEAST_CHUNK, power_of_2(size)))
    return Config(chunk, cdiv(size, chunk), FRONT)


@triton.jit
def _bits(distance):
    """An integer that is ordered as distances are."""
    return distance.to(tl.int32, bitcast=True)


@triton.jit
def _row(tops, temperature, row, chunks, PARTS: tl.constexpr):
    """The greatest logit, what differences to it are multiplied with, and whether there is anything to draw."""
    part = tl.arange(0, PARTS)
    peak = tl.max(tl.load(tops + row * chunks + part, mask=part < chunks, other=-float("inf")), 0)
    heat = tl.load(temperature + row)
    drawn = (heat > 0.0) & (tl.abs(peak) < float("inf"))
    return peak, tl.math.div_rn(1.0, tl.maximum(heat, _COOLEST)), drawn


@triton.jit
def _peaks(logits, tops, places, size, chunks, row_step, CHUNK: tl.constexpr):
    """The greatest logit of a chunk, infinite for one that is no number, and its lowest token."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    token = chunk * CHUNK + tl.arange(0, CHUNK)
    x = tl.load(logits + row * row_step + token, mask=token < size, other=-float("inf")).to(tl.float32)
    x = tl.where(x != x, float("inf"), x)
    top = tl.max(x, 0)
    tl.store(tops + row * chunks + chunk, top)
    tl.store(places + row * chunks + chunk, tl.min(tl.where(x == top, token, size), 0))


@triton.jit
def _front(
    logits, tops, temperature, top_k, top_p, front, bounds, masses, size, chunks, row_step,
    CHUNK: tl.constexpr, FRONT: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The distances of a chunk up to a bound, at most FRONT of them, and what all tokens of the chunk weigh."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    peak, inverse, drawn = _row(tops, temperature, row, chunks, PARTS)
    if drawn & ((tl.load(top_k + row) > 0) | (tl.load(top_p + row) < 1.0)):
        token = chunk * CHUNK + tl.arange(0, CHUNK)
        x = tl.load(logits + row * row_step + token, mask=token < size, other=-float("inf")).to(tl.float32)
        distance = (peak - x) * inverse
        place = tl.where(token < size, _bits(distance), INFINITE + 1)
        low = tl.full((), -1, tl.int32)
        high = tl.full((), INFINITE + 1, tl.int32)
        while high - low > 1:
            middle = low + (high - low) // 2
            count = tl.sum((place <= middle).to(tl.int32), 0)
            fits = count <= FRONT
            low = tl.where(fits, middle, low)
            close = fits & (4 * count >= 3 * FRONT)
            high = tl.where(fits, tl.where(close, middle + 1, high), middle)
        kept = place <= low
        own = (row * chunks + chunk) * FRONT
        many = tl.sum(kept.to(tl.int32), 0)
        tl.store(front + own + tl.cumsum(kept.to(tl.int32), 0) - 1, distance, mask=kept)
        rest = tl.arange(0, FRONT)
        tl.store(front + own + rest, tl.full((FRONT,), float("inf"), tl.float32), mask=rest >= many)
        tl.store(bounds + row * chunks + chunk, low)
        tl.store(masses + row * chunks + chunk, tl.sum(tl.exp(-distance), 0))


@triton.jit
def _measure(given, size, peak, inverse, bound, LOGITS: tl.constexpr, BLOCK: tl.constexpr):
    """How many of the distances given, or of those of the logits given, are within a bound, and what they weigh."""
    count = tl.full((), 0, tl.int32)
    mass = tl.full((), 0.0, tl.float32)
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        if LOGITS:
            x = tl.load(given + at, mask=at < size, other=-float("inf")).to(tl.float32)
            distance = (peak - x) * inverse
        else:
            distance = tl.load(given + at, mask=at < size, other=float("inf"))
        within = (_bits(distance) <= bound) & (at < size)
        count += tl.sum(within.to(tl.int32), 0)
        mass += tl.sum(tl.where(within, tl.exp(-distance), 0.0), 0)
    return count, mass


@triton.jit
def _least(given, size, peak, inverse, high, wanted, weight, LOGITS: tl.constexpr, BLOCK: tl.constexpr):
    """A bound of at most `high` with the fewest tokens that are at least `wanted` and weigh at least `weight`.

    `high` itself has enough. Bounds with the same tokens are as good as each other.
    """
    low = tl.full((), -1, tl.int32)
    fewer = tl.full((), 0, tl.int32)
    more = tl.full((), 0x7FFFFFFF, tl.int32)
    while (high - low > 1) & (more - fewer > 1):
        middle = low + (high - low) // 2
        count, mass = _measure(given, size, peak, inverse, middle, LOGITS, BLOCK)
        enough = (count >= wanted) & (mass >= weight)
        high = tl.where(enough, middle, high)
        more = tl.where(enough, count, more)
        exact = enough & (count == wanted)
        fewer = tl.where(exact, count, tl.where(enough, fewer, count))
        low = tl.where(enough, low, middle)
    return high


@triton.jit
def _cut(
    logits, tops, front, bounds, masses, temperature, top_k, top_p, min_p, limits, size, chunks, row_step,
    FRONT: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The bits of the greatest distance that a row keeps."""
    row = tl.program_id(0).to(tl.int64)
    peak, inverse, drawn = _row(tops, temperature, row, chunks, PARTS)
    limit = tl.full((), INFINITE, tl.int32)
    count_kept = tl.load(top_k + row)
    share = tl.load(top_p + row)
    if drawn & ((count_kept > 0) | (share < 1.0)):
        part = tl.arange(0, PARTS)
        bound = tl.min(tl.load(bounds + row * chunks + part, mask=part < chunks, other=INFINITE), 0)
        total = tl.sum(tl.load(masses + row * chunks + part, mask=part < chunks, other=0.0), 0)
        near = front + row * chunks * FRONT
        width = chunks * FRONT
        whole = logits + row * row_step
        if (count_kept > 0) & (count_kept < size):
            count, mass = _measure(near, width, peak, inverse, bound, False, BLOCK)
            if count >= count_kept:
                limit = _least(near, width, peak, inverse, bound, count_kept, 0.0, False, BLOCK)
                count, total = _measure(near, width, peak, inverse, limit, False, BLOCK)
            else:
                limit = _least(whole, size, peak, inverse, limit, count_kept, 0.0, True, BLOCK)
                count, total = _measure(whole, size, peak, inverse, limit, True, BLOCK)
        if share < 1.0:
            high = tl.minimum(limit, bound)
            count, mass = _measure(near, width, peak, inverse, high, False, BLOCK)
            if (mass >= share * total) & (count > 0):
                limit = _least(near, width, peak, inverse, high, 1, share * total, False, BLOCK)
            else:
                limit = _least(whole, size, peak, inverse, limit, 1, share * total, True, BLOCK)
    least = tl.load(min_p + row)
    if least > 0.0:
        limit = tl.minimum(limit, _bits(tl.maximum(0.0 - tl.log(least), 0.0)))
    tl.store(limits + row, limit)


@triton.jit
def _gumbel(words):
    """Noise from 32 random bits each, as in the reference."""
    v = tl.minimum((words.to(tl.float32) + 0.5) * _UNIT, _LARGEST)
    series = v * (1.0 + v * (0.5 + v * (1.0 / 3.0 + v * 0.25)))
    return -tl.log(tl.where(v < _SMALL, series, -tl.log(1.0 - v)))


@triton.jit
def _race(
    logits, tops, temperature, limits, seed, counter, values, tokens, size, chunks, row_step,
    CHUNK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The greatest score with noise of the tokens kept in a chunk, and its token."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    peak, inverse, drawn = _row(tops, temperature, row, chunks, PARTS)
    own = row * chunks + chunk
    value = tl.full((), -float("inf"), tl.float32)
    token = tl.full((), 0, tl.int32)
    if drawn:
        limit = tl.load(limits + row)
        nearest = (peak - tl.load(tops + own)) * inverse
        if (nearest < REACH) & (_bits(nearest) <= limit):
            place = chunk * CHUNK + tl.arange(0, CHUNK)
            x = tl.load(logits + row * row_step + place, mask=place < size, other=-float("inf")).to(tl.float32)
            distance = (peak - x) * inverse
            at = tl.load(counter + row)
            group = chunk * (CHUNK // 4) + tl.arange(0, CHUNK // 4)
            stream = tl.full((), _STREAM, tl.int32)
            a, b, c, d = tl.philox(tl.load(seed + row), at.to(tl.int32), (at >> 32).to(tl.int32), stream, group)
            noise = _gumbel(tl.interleave(tl.interleave(a, c), tl.interleave(b, d)))
            kept = (_bits(distance) <= limit) & (place < size)
            raced = tl.where(kept, noise - distance, -float("inf"))
            value = tl.max(raced, 0)
            token = tl.min(tl.where(raced == value, place, size), 0)
    tl.store(values + own, value)
    tl.store(tokens + own, token)


@triton.jit
def _pick(tops, places, temperature, values, tokens, out, chunks, PARTS: tl.constexpr):
    """The token of a row: of those with the greatest value the lowest, or none where the logits are not finite."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, PARTS)
    at = row * chunks + part
    inside = part < chunks
    top = tl.load(tops + at, mask=inside, other=-float("inf"))
    value = tl.load(values + at, mask=inside, other=-float("inf"))
    peak = tl.max(top, 0)
    greedy = tl.min(tl.where((top == peak) & inside, tl.load(places + at, mask=inside, other=0), 0x7FFFFFFF), 0)
    most = tl.max(value, 0)
    drawn = tl.min(tl.where((value == most) & inside, tl.load(tokens + at, mask=inside, other=0), 0x7FFFFFFF), 0)
    token = tl.where(tl.load(temperature + row) > 0.0, drawn, greedy)
    tl.store(out + row, tl.where(tl.abs(peak) < float("inf"), token, _NO_TOKEN).to(tl.int64))


def sample(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor, seed: Tensor, counter: Tensor
) -> Tensor:
    """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
    no_gradient("sample", logits)
    rows, size = logits.shape
    if logits.stride(1) != 1:
        raise mismatch("sample", "logits", logits.stride(), "dense rows")
    for name, tensor, dtype in (
        ("temperature", temperature, torch.float32), ("top_k", top_k, torch.int32), ("top_p", top_p, torch.float32),
        ("min_p", min_p, torch.float32), ("seed", seed, torch.int64), ("counter", counter, torch.int64),
    ):  # fmt: skip
        if tensor.dtype != dtype or tensor.shape != (rows,) or not tensor.is_contiguous():
            raise mismatch("sample", name, (tensor.dtype, tuple(tensor.shape)), f"{dtype} [{rows}], contiguous")
    out = torch.empty(rows, dtype=torch.int64, device=logits.device)
    if not rows:
        return out
    chunk, chunks, ahead = select_config(size)
    tops, masses, values = torch.empty(3, rows, chunks, dtype=torch.float32, device=logits.device)
    places, bounds, tokens = torch.empty(3, rows, chunks, dtype=torch.int32, device=logits.device)
    front = torch.empty(rows, chunks, ahead, dtype=torch.float32, device=logits.device)
    limits = torch.empty(rows, dtype=torch.int32, device=logits.device)
    shape, parts = (size, chunks, logits.stride(0)), power_of_2(chunks)
    _peaks[(rows, chunks)](logits, tops, places, *shape, CHUNK=chunk)
    _front[(rows, chunks)](
        logits, tops, temperature, top_k, top_p, front, bounds, masses, *shape, CHUNK=chunk, FRONT=ahead, PARTS=parts
    )
    _cut[(rows,)](
        logits, tops, front, bounds, masses, temperature, top_k, top_p, min_p, limits, *shape, FRONT=ahead,
        PARTS=parts, BLOCK=chunk, num_warps=CUT_WARPS,
    )  # fmt: skip
    _race[(rows, chunks)](
        logits, tops, temperature, limits, seed, counter, values, tokens, *shape, CHUNK=chunk, PARTS=parts
    )
    _pick[(rows,)](tops, places, temperature, values, tokens, out, chunks, PARTS=parts, num_warps=1)
    return out


def register(table: OpTable) -> None:
    """Put it into a table."""
    table.register("sample", "triton", sample, served)


def _variants() -> Iterator[Variant]:
    kinds = {
        "tops": "*fp32", "places": "*i32", "temperature": "*fp32", "top_k": "*i32", "top_p": "*fp32", "min_p": "*fp32",
        "front": "*fp32", "bounds": "*i32", "masses": "*fp32", "limits": "*i32", "seed": "*i64", "counter": "*i64",
        "values": "*fp32", "tokens": "*i32", "out": "*i64", "size": "i32:16", "chunks": "i32", "row_step": "i32:16",
    }  # fmt: skip
    for dtype, size in (("bf16", 128_256), ("fp32", 128_256), ("bf16", 262_144)):
        chunk, chunks, ahead = select_config(size)
        parts = power_of_2(chunks)
        for kernel, constants in (
            (_peaks, {"CHUNK": chunk}), (_front, {"CHUNK": chunk, "FRONT": ahead, "PARTS": parts}),
            (_cut, {"FRONT": ahead, "PARTS": parts, "BLOCK": chunk}), (_race, {"CHUNK": chunk, "PARTS": parts}),
            (_pick, {"PARTS": parts}),
        ):  # fmt: skip
            types = {**kinds, "logits": f"*{dtype}"}
            signature = {name: types[name] for name in kernel.arg_names if name in types}
            stage = kernel.__name__.strip("_")
            warps = {"cut": CUT_WARPS, "pick": 1}.get(stage, 4)
            yield Variant(f"sampling.{stage}_{dtype}_{size}", kernel, signature, constants, warps)


VARIANTS: Sequence[Variant] = tuple(_variants())
