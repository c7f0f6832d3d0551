"""Attention of packed rows: one kernel for decode, mixed steps, prefill and encoders, and one that folds its parts.

    out[i] = sum_j 2^(s_ij - m) v[j] / sum_j 2^(s_ij - m),  s_ij = cap(scale * q[i] . k[j]) / ln 2,  m = max_j s_ij

A program has BLOCK_M rows of the score matrix: all GROUP query heads that share a key head, times BLOCK_Q queries that
follow each other in one row of the step, so that keys and values are read once for all of them and also a single query
is a matrix product. It goes over its keys in tiles of TILE, with the running maximum and sum of Milakov and Gimelshein
2018 in base 2 (as FlashAttention does). A tile spans several pages: the page of each of its keys is one gathered load,
and its rows are then read wherever they lie.

The launch depends on shapes alone. Row r of the step gets its blocks of queries from `cu_q[r] // BLOCK_Q + r` on, which
is room enough for any lengths; a program finds its row there and ends at once where its row has no such block, so a
grid of `tokens // BLOCK_Q + rows` serves every step of that shape, and a CUDA graph of it serves every step of its
bucket. With BLOCK_Q = 1 a block is a token, and the row is mostly the first one looked at.

Few rows do not fill a device: the keys of a block are then cut in `splits` parts (Flash-Decoding, Dao et al. 2023) of
at least `least` tiles, each part writes its accumulator [T, Hq, splits, Dv], maximum and sum [T, Hq, splits] in
float32, and `fold` joins them. Parts without keys write a sum of 0.

Windows hide keys that are `window` or more behind the query, and tiles that no query of the block sees are not read. A
cap c makes a score c tanh(score / c). Sinks join the sum at the very end. Quantized pages hold q with k = q * scale for
each key and head: scores are multiplied by the scale of their key, weights by the scale of their value, and the
products take q itself, which bfloat16 and float16 hold exactly.

Bound: bytes in decode, (D + Dv) * itemsize for each token and key head; in prefill 2 (D + Dv) FLOPs for each query head
and key that it sees.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .house import tanh


@triton.jit
def _row_of(block, cu_q, rows, BLOCK_Q: tl.constexpr):
    """The row of the step that has a block: the last one whose first block is not behind it."""
    low = 0
    high = rows
    if BLOCK_Q == 1:  # blocks are tokens; with one for each row, as in decode, this is found at once
        guess = tl.minimum(block, rows - 1)
        first = tl.load(cu_q + guess)
        after = tl.load(cu_q + guess + 1)
        if (first <= block) & (block < after):
            low = guess
            high = guess + 1
    while low + 1 < high:
        middle = (low + high) // 2
        begins = tl.load(cu_q + middle)
        if BLOCK_Q > 1:
            begins = begins // BLOCK_Q + middle
        if begins <= block:
            low = middle
        else:
            high = middle
    return low


@triton.jit
def _tiles(
    acc, top, total, q, position, first_tile, end_tile, length, k, v, k_scale, v_scale, pages, k_page, k_token, v_page,
    v_token, ks_page, vs_page, factor, softcap, window,
    D: tl.constexpr, DV: tl.constexpr, D_PAD: tl.constexpr, DV_PAD: tl.constexpr, PAGE: tl.constexpr,
    TILE: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, CAP: tl.constexpr, SCALED: tl.constexpr,
    MASKED: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Goes over some tiles of keys; MASKED where a query may not see all keys of a tile."""
    within = tl.arange(0, TILE)
    d = tl.arange(0, D_PAD)
    dv = tl.arange(0, DV_PAD)
    for tile in range(first_tile, end_tile):
        n = tile * TILE + within
        there = n < length
        if MASKED:
            page = tl.load(pages + n // PAGE, mask=there, other=0).to(tl.int64)
        else:
            page = tl.load(pages + n // PAGE).to(tl.int64)
        place = n % PAGE
        keys = k + (page * k_page + place * k_token)[:, None] + d[None, :]
        values = v + (page * v_page + place * v_token)[:, None] + dv[None, :]
        if MASKED:
            key = tl.load(keys, mask=there[:, None] & (d < D)[None, :], other=0.0)
        elif D_PAD > D:
            key = tl.load(keys, mask=(d < D)[None, :], other=0.0)
        else:
            key = tl.load(keys)
        scores = tl.dot(q, tl.trans(key.to(DOT)), input_precision="ieee") * factor
        if SCALED:
            scores *= tl.load(k_scale + page * ks_page + place, mask=there, other=0.0)[None, :]
        if CAP:
            scores = tanh(scores / softcap) * (softcap * 1.4426950408889634)
        if MASKED:
            seen = there[None, :]
            if CAUSAL:
                seen = seen & (n[None, :] <= position[:, None])
            if WINDOW:
                seen = seen & (position[:, None] - n[None, :] < window)
            scores = tl.where(seen, scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        weights = tl.exp2(scores - base[:, None])
        shrunk = tl.exp2(top - base)
        total = total * shrunk + tl.sum(weights, 1)
        if MASKED:
            value = tl.load(values, mask=there[:, None] & (dv < DV)[None, :], other=0.0)
        elif DV_PAD > DV:
            value = tl.load(values, mask=(dv < DV)[None, :], other=0.0)
        else:
            value = tl.load(values)
        if SCALED:
            weights *= tl.load(v_scale + page * vs_page + place, mask=there, other=0.0)[None, :]
        acc = acc * shrunk[:, None]
        acc = tl.dot(weights.to(DOT), value.to(DOT), acc, input_precision="ieee")
        top = new_top
    return acc, top, total


UNSPECIALIZED = ("rows", "window", "table_row", "splits", "least")
"""Numbers that differ from step to step, for which nothing is to be compiled anew."""


@triton.jit(do_not_specialize=UNSPECIALIZED)
def attend(
    q, k, v, k_scale, v_scale, sinks, table, cu_q, lengths, out, parts, tops, sums, rows, scale, softcap, window,
    q_token, q_head, k_page, k_head, k_token, v_page, v_head, v_token, ks_page, ks_head, vs_page, vs_head, table_row,
    splits, least,
    HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, D_PAD: tl.constexpr,
    DV_PAD: tl.constexpr, PAGE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_Q: tl.constexpr, TILE: tl.constexpr,
    SPLIT: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, CAP: tl.constexpr, SCALED: tl.constexpr,
    SINKS: tl.constexpr, TWICE: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of queries, key heads, splits). TWICE: tiles that every query sees are gone over without masks."""
    block = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    row = _row_of(block, cu_q, rows, BLOCK_Q)
    start = tl.load(cu_q + row)
    count = tl.load(cu_q + row + 1) - start
    length = tl.load(lengths + row)
    offset = block - start if BLOCK_Q == 1 else (block - start // BLOCK_Q - row) * BLOCK_Q
    if offset >= count:
        return
    m = tl.arange(0, BLOCK_M)
    token = offset + m // GROUP
    head = kv_head * GROUP + m % GROUP
    mine = (token < count) & (m < BLOCK_Q * GROUP)
    position = length - count + token
    at = (start + token).to(tl.int64)
    d = tl.arange(0, D_PAD)
    queries = q + (at * q_token + head * q_head)[:, None] + d[None, :]
    query = tl.load(queries, mask=mine[:, None] & (d < D)[None, :], other=0.0).to(DOT)

    end = length
    if CAUSAL:
        end = tl.minimum(length, length - count + offset + BLOCK_Q)
    tiles = tl.cdiv(tl.maximum(end, 0), TILE)
    low = 0
    if WINDOW:
        low = tl.maximum(length - count + offset - window + 1, 0) // TILE
    if SPLIT:
        share = tl.maximum(tl.cdiv(tiles - low, splits), least)
        low += split * share
        tiles = tl.minimum(tiles, low + share)

    acc = tl.zeros([BLOCK_M, DV_PAD], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    factor = scale
    if not CAP:
        factor = scale * 1.4426950408889634
    k += kv_head.to(tl.int64) * k_head
    v += kv_head.to(tl.int64) * v_head
    if SCALED:
        k_scale += kv_head * ks_head
        v_scale += kv_head * vs_head
    pages = table + row.to(tl.int64) * table_row
    middle = low
    if TWICE:
        full = length // TILE
        if CAUSAL:
            full = tl.minimum(full, (length - count + offset + 1) // TILE)
        middle = tl.maximum(tl.minimum(full, tiles), low)
        acc, top, total = _tiles(
            acc, top, total, query, position, low, middle, length, k, v, k_scale, v_scale, pages, k_page, k_token,
            v_page, v_token, ks_page, vs_page, factor, softcap, window,
            D, DV, D_PAD, DV_PAD, PAGE, TILE, CAUSAL, WINDOW, CAP, SCALED, False, DOT,
        )  # fmt: skip
    acc, top, total = _tiles(
        acc, top, total, query, position, middle, tiles, length, k, v, k_scale, v_scale, pages, k_page, k_token,
        v_page, v_token, ks_page, vs_page, factor, softcap, window,
        D, DV, D_PAD, DV_PAD, PAGE, TILE, CAUSAL, WINDOW, CAP, SCALED, True, DOT,
    )  # fmt: skip

    dv = tl.arange(0, DV_PAD)
    where = at * HEADS + head
    kept = mine[:, None] & (dv < DV)[None, :]
    if SPLIT:
        where = where * splits + split
        tl.store(tops + where, top, mask=mine)
        tl.store(sums + where, total, mask=mine)
        tl.store(parts + where[:, None] * DV + dv[None, :], acc, mask=kept & (total > 0.0)[:, None])
    else:
        if SINKS:
            sink = tl.load(sinks + head, mask=mine, other=0.0).to(tl.float32) * 1.4426950408889634
            most = tl.maximum(top, sink)
            shrunk = tl.exp2(top - most)
            acc = acc * shrunk[:, None]
            total = total * shrunk + tl.exp2(sink - most)
        answer = acc / tl.where(total > 0.0, total, 1.0)[:, None]
        tl.store(out + where[:, None] * DV + dv[None, :], answer.to(out.dtype.element_ty), mask=kept)


@triton.jit
def fold(
    parts, tops, sums, sinks, out, HEADS: tl.constexpr, DV: tl.constexpr, DV_PAD: tl.constexpr, SPLITS: tl.constexpr,
    SINKS: tl.constexpr,
):  # fmt: skip
    """Joins the parts of one query head of one token. Grid (tokens, heads); SPLITS is a power of two."""
    where = tl.program_id(0).to(tl.int64) * HEADS + tl.program_id(1)
    part = where * SPLITS + tl.arange(0, SPLITS)
    dv = tl.arange(0, DV_PAD)
    top = tl.load(tops + part)
    total = tl.load(sums + part)
    most = tl.max(top, 0)
    if SINKS:
        sink = tl.load(sinks + tl.program_id(1)).to(tl.float32) * 1.4426950408889634
        most = tl.maximum(most, sink)
    base = tl.where(most == float("-inf"), 0.0, most)
    shrunk = tl.exp2(top - base)
    acc = tl.load(parts + part[:, None] * DV + dv[None, :], mask=(total > 0.0)[:, None] & (dv < DV)[None, :], other=0.0)
    whole = tl.sum(total * shrunk, 0)
    if SINKS:
        whole += tl.exp2(sink - base)
    answer = tl.sum(acc * shrunk[:, None], 0) / tl.where(whole > 0.0, whole, 1.0)
    tl.store(out + where * DV + dv, answer.to(out.dtype.element_ty), mask=dv < DV)
