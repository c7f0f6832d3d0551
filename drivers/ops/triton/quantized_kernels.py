"""Kernels for weights of 4 and 8 bits: one token, some tokens, and weights made whole again; see `quantized.Scheme`.

    y[t, n] = sum_g scale[g, n] * sum_(k of g) (u[n, k] - c) x[t, k]  +  shift[g, n] * sum_(k of g) x[t, k]

Numbers lie as they are stored, the inputs of an output one behind the other, filled up to whole blocks of 128; scales
lie [groups, N], so that neighbouring outputs find theirs together. Numbers of 4 bits need no shuffling: the low halves
of 64 bytes are 64 inputs, the high halves the 64 after them.

Numbers become floating without a conversion, which a multiprocessor does too few of: the bits of u are put into the
mantissa of a power of two 2^m, and what comes off is 2^m + c, exactly. Weights that are multiplied are whole numbers
then, exact in every dtype; scales are applied to the sums of a group, in float32.

Bound: bytes. (K / 2 or K) bytes of numbers and 2 bytes a group for each output; x and y are small beside them.
"""

from __future__ import annotations

import triton
import triton.language as tl

POWER = 0x4B000000
"""The bits of 2^23 in float32. `gemv` is given them, as an assembler that sees two constants spends two instructions
where a mask and a register take one."""
BYTES = 16
"""Bytes that a thread of `gemv` loads at a time; they are of one group."""
HALF = 64
"""Bytes of a block of 4-bit numbers, and inputs of each of its halves."""


@triton.jit
def _float8(numbers):
    """What the bits of e4m3 in the lowest byte stand for, float32: 4 bits of exponent, 7 less than 127 off by 120."""
    bits = ((numbers & 0x80) << 24) | ((numbers & 0x7F) << 20)
    return bits.to(tl.float32, bitcast=True) * 1329227995784915872903807060280344576.0


@triton.jit
def _whole(numbers, FLOAT: tl.constexpr, MIDDLE: tl.constexpr, BITS: tl.constexpr, DOT: tl.constexpr):
    """u - c of bytes, in DOT. BITS says in which dtype's u becomes floating: 2^m has 7 of bfloat16, 10 of float16, 23
    of float32."""
    if FLOAT:
        return _float8(numbers.to(tl.uint32)).to(DOT)
    if BITS == 7:
        return (numbers.to(tl.uint16) | 0x4300).to(tl.bfloat16, bitcast=True).to(DOT) - (128 + MIDDLE)
    if BITS == 10:
        return (numbers.to(tl.uint16) | 0x6400).to(tl.float16, bitcast=True).to(DOT) - (1024 + MIDDLE)
    wide = (numbers.to(tl.uint32) | 0x4B000000).to(tl.float32, bitcast=True) - (8388608 + MIDDLE)
    return wide.to(DOT)


@triton.jit
def _field(words, power, AT: tl.constexpr, SIZE: tl.constexpr, MIDDLE: tl.constexpr, FLOAT: tl.constexpr):
    """u - c, or the floating number, of SIZE bits from AT on in words of 32. The bits stay where they are if they fit
    in a fraction: those from AT on count as whole numbers beside 2^(23 - AT). `power` is that of AT 0."""
    if FLOAT:
        return _float8(words >> AT)
    LOW: tl.constexpr = 12 if AT + SIZE > 23 else 0
    kept = ((words >> LOW) & (((1 << SIZE) - 1) << (AT - LOW))) | (power - ((AT - LOW) << 23))
    return kept.to(tl.float32, bitcast=True) - ((1 << (23 - AT + LOW)) + MIDDLE)


@triton.jit
def _input(place, half):
    """Which input the low or high half of a byte of 4-bit numbers is."""
    return place // 64 * 128 + place % 64 + half * 64


@triton.jit(do_not_specialize=["tokens"])
def gemv(
    x, words, scale, shift, bias, out, tokens, outs, ins, row, part, x_row, out_part, power,
    WIDTH: tl.constexpr, GROUP: tl.constexpr, FLOAT: tl.constexpr, MIDDLE: tl.constexpr, EVEN: tl.constexpr,
    TOKENS: tl.constexpr, OUTS: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """TOKENS tokens times OUTS outputs, of `part` bytes of each output's row, without tensor cores. A thread has 16
    bytes at a time, as words of 32 bits; its sums are scaled, and nothing is added across threads before the end."""
    n = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    begin = tl.program_id(1) * part
    end = tl.minimum(begin + part, row)
    own = words + n.to(tl.int64)[:, None] * (row // 4)
    HALVES: tl.constexpr = 8 // WIDTH
    sums = (tl.zeros((OUTS, CHUNKS), tl.float32),) * TOKENS
    for at in range(begin, end, CHUNKS * 16):
        first = at + tl.arange(0, CHUNKS) * 16
        word = at // 4 + tl.arange(0, CHUNKS * 4)
        given = tl.load(own + word[None, :], mask=(n < outs)[:, None] & (word * 4 < end)[None, :], other=0)
        place = at + tl.arange(0, CHUNKS * 16)
        here = (n < outs)[:, None] & (first < end)[None, :]
        for token in tl.static_range(TOKENS):
            products = tl.zeros((OUTS, CHUNKS * 4), tl.float32)
            every = tl.zeros((CHUNKS,), tl.float32)
            for half in tl.static_range(HALVES):
                k = place if WIDTH == 8 else _input(place, half)
                kept = place < end if EVEN else (place < end) & (k < ins)
                kept = kept & (token < tokens)
                values = tl.load(x + token * x_row + k, mask=kept, other=0.0).to(tl.float32)
                even, odd = tl.split(tl.reshape(values, (CHUNKS * 4, 2, 2)))
                x0, x2 = tl.split(even)
                x1, x3 = tl.split(odd)
                products += _field(given, power, half * 4, WIDTH, MIDDLE, FLOAT) * x0[None, :]
                products += _field(given, power, half * 4 + 8, WIDTH, MIDDLE, FLOAT) * x1[None, :]
                products += _field(given, power, half * 4 + 16, WIDTH, MIDDLE, FLOAT) * x2[None, :]
                products += _field(given, power, half * 4 + 24, WIDTH, MIDDLE, FLOAT) * x3[None, :]
                if shift is not None:
                    every += tl.sum(tl.reshape(values, (CHUNKS, 16)), 1)
                if half == HALVES - 1 or GROUP == 32 or GROUP == 64:
                    start = first if WIDTH == 8 else _input(first, half)
                    where = n[:, None] + (start // GROUP * outs if GROUP else start * 0)[None, :]
                    scales = tl.load(scale + where, mask=here, other=0.0).to(tl.float32)
                    added = tl.sum(tl.reshape(products, (OUTS, CHUNKS, 4)), 2) * scales
                    if shift is not None:
                        added += tl.load(shift + where, mask=here, other=0.0).to(tl.float32) * every[None, :]
                    total = (sums[token] + added,)
                    sums = sums[:token] + total + sums[token + 1 :]
                    products = tl.zeros((OUTS, CHUNKS * 4), tl.float32)
                    every = tl.zeros((CHUNKS,), tl.float32)
    for token in tl.static_range(TOKENS):
        answer = tl.sum(sums[token], 1)
        if bias is not None:
            answer += tl.load(bias + n, mask=n < outs, other=0.0).to(tl.float32)
        at_out = out + tl.program_id(1) * out_part + token * outs + n
        tl.store(at_out, answer.to(out.dtype.element_ty), mask=(n < outs) & (token < tokens))


@triton.jit(do_not_specialize=["tokens"])
def gemm(
    x, numbers, scale, shift, bias, out, tokens, outs, ins, row, part, x_row, out_part,
    WIDTH: tl.constexpr, GROUP: tl.constexpr, FLOAT: tl.constexpr, MIDDLE: tl.constexpr, EVEN: tl.constexpr,
    BITS: tl.constexpr, DOT: tl.constexpr, OUTS: tl.constexpr, TOKENS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """A tile [OUTS, TOKENS] of the transposed answer: weights are the operand that lies in registers, and few tokens
    are filled up to 16 only. A step takes STEP bytes of each row, whose inputs (of a half) are of one group."""
    n = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    begin = tl.program_id(2) * part
    end = tl.minimum(begin + part, row)
    byte = tl.arange(0, STEP)
    own = numbers + n.to(tl.int64)[:, None] * row + byte[None, :]
    own_x = x + token.to(tl.int64)[None, :] * x_row + byte[:, None]
    sums = tl.zeros((OUTS, TOKENS), tl.float32)
    every = tl.zeros((TOKENS,), tl.float32)
    BLOCK: tl.constexpr = 64 if WIDTH == 4 else STEP
    for block in range(begin, end, BLOCK):
        for step in tl.static_range(0, BLOCK, STEP):
            given = tl.load(own + block + step, mask=(n < outs)[:, None], other=0)
            inner = tl.zeros((OUTS, TOKENS), tl.float32)
            given_sum = tl.zeros((TOKENS,), tl.float32)
            for half in tl.static_range(8 // WIDTH):
                taken = given if WIDTH == 8 else (given >> 4 if half else given & 15)
                first = block + step if WIDTH == 8 else block * 2 + step + half * 64
                kept = (token < tokens)[None, :]
                if not EVEN:
                    kept = kept & (first + byte < ins)[:, None]
                values = tl.load(own_x + first, mask=kept, other=0.0).to(DOT)
                whole = _whole(taken, FLOAT, MIDDLE, BITS, DOT)
                if GROUP == 0:
                    sums = tl.dot(whole, values, sums, input_precision="ieee")
                else:
                    inner = tl.dot(whole, values, inner, input_precision="ieee")
                if shift is not None:
                    given_sum += tl.sum(values.to(tl.float32), 0)
                if GROUP and (half == 8 // WIDTH - 1 or GROUP < 128):
                    group = first // GROUP * outs
                    sums += inner * tl.load(scale + group + n, mask=n < outs, other=0.0).to(tl.float32)[:, None]
                    inner = tl.zeros((OUTS, TOKENS), tl.float32)
                    if shift is not None:
                        shifts = tl.load(shift + group + n, mask=n < outs, other=0.0).to(tl.float32)
                        sums += shifts[:, None] * given_sum[None, :]
                        given_sum = tl.zeros((TOKENS,), tl.float32)
            if GROUP == 0:
                every += given_sum
    if GROUP == 0:
        sums *= tl.load(scale + n, mask=n < outs, other=0.0).to(tl.float32)[:, None]
        if shift is not None:
            sums += tl.load(shift + n, mask=n < outs, other=0.0).to(tl.float32)[:, None] * every[None, :]
    if bias is not None:
        sums += tl.load(bias + n, mask=n < outs, other=0.0).to(tl.float32)[:, None]
    at_out = out + tl.program_id(2).to(tl.int64) * out_part + token.to(tl.int64)[None, :] * outs + n[:, None]
    tl.store(at_out, sums.to(out.dtype.element_ty), mask=(n < outs)[:, None] & (token < tokens)[None, :])


@triton.jit
def fold(parts, bias, out, count, outs, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """The sums of the parts [PARTS, count] in order, and the bias [outs]."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(PARTS):
        total += tl.load(parts + part * count + at, mask=at < count, other=0.0)
    if bias is not None:
        total += tl.load(bias + at % outs, mask=at < count, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=at < count)


@triton.jit(do_not_specialize=["first", "count"])
def dequantize(
    ids, numbers, scale, shift, out, first, count, outs, ins, row,
    WIDTH: tl.constexpr, GROUP: tl.constexpr, FLOAT: tl.constexpr, MIDDLE: tl.constexpr, OUTS: tl.constexpr,
):  # fmt: skip
    """64 bytes of each of OUTS rows as weights [count, ins]: rows from `first` on, or those that `ids` names."""
    at = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    here = at < count
    n = (first + at).to(tl.int64)
    if ids is not None:
        n = tl.load(ids + at, mask=here, other=0).to(tl.int64)
    byte = tl.arange(0, 64)
    place = tl.program_id(1) * 64
    given = tl.load(numbers + n[:, None] * row + place + byte[None, :], mask=here[:, None], other=0)
    for half in tl.static_range(8 // WIDTH):
        taken = given
        k = place + byte
        if WIDTH == 4:
            taken = given >> 4 if half else given & 15
            k = _input(place + byte, half)
        group = k // GROUP if GROUP else k * 0
        where = n[:, None] + group.to(tl.int64)[None, :] * outs
        weight = _whole(taken, FLOAT, MIDDLE, 23, tl.float32)
        weight *= tl.load(scale + where, mask=here[:, None], other=0.0).to(tl.float32)
        if shift is not None:
            weight += tl.load(shift + where, mask=here[:, None], other=0.0).to(tl.float32)
        to = out + at.to(tl.int64)[:, None] * ins + k[None, :]
        tl.store(to, weight.to(out.dtype.element_ty), mask=here[:, None] & (k < ins)[None, :])
