"""Cases of what stands between the matrix products of a layer: sums, norms, gated units and rotary positions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .. import reference_layers as reference
from .case import Call, Case, Draws, Verdict, near

EPS = 1e-5


def summed(shape: tuple[int, ...], seed: int = 0) -> Case:
    """A residual of this shape."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws = Draws(seed, device, dtype)
        return Call((draws.normal(*shape), draws.normal(*shape, scale=3.0)))

    return Case("add", f"{shape}", {}, make)


def rms(rows: int, width: int, added: bool, unit_offset: bool, round_first: bool, seed: int = 0) -> Case:
    """RMSNorm of a residual stream."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws = Draws(seed, device, dtype)
        given = [draws.normal(1, rows, width, scale=2.0) for _ in range(1 + added)]
        return Call((*given, draws.normal(width), EPS, unit_offset, round_first))

    form = f"{'1 + w' if unit_offset else 'w'}, rounded {'before' if round_first else 'after'} it"
    return Case("add_rms_norm" if added else "rms_norm", f"{rows} x {width}, {form}", {}, make)


def narrowed(rows: int, width: int, added: bool, unit_offset: bool, round_first: bool, seed: int = 0) -> Case:
    """RMSNorm of a residual stream for products that multiply e4m3."""
    like = rms(rows, width, added, unit_offset, round_first, seed)
    return replace(like, op=f"{like.op}_float8", dtypes=like.dtypes[:2], judge=rounded_near, run=spread)


def spread(implementation: Callable[..., Any], call: Call) -> tuple[Tensor, ...]:
    """What rows are worth, their scales, the greatest number of those that fill up, and the sum where there is one."""
    answer = implementation(*call.args, **call.options)
    rows, *total = answer if isinstance(answer, tuple) else (answer,)
    beyond = rows.numbers.float()
    beyond[: rows.tokens, : rows.shape[-1]] = 0.0
    return rows.worth(), rows.scale[: rows.tokens], beyond.abs().amax().view(1), *total


def rounded_near(expected: Any, got: Any, dtype: torch.dtype, call: Call) -> Verdict:
    """What a row is worth is the norm within half a step of e4m3; all else is near what was expected."""
    others = near(expected[1:], got[1:], dtype, call)
    if not others.ok:
        return others
    wide: list[Any] = [value.detach().cpu().float() if isinstance(value, Tensor) else value for value in call.args]
    norm = reference.rms_norm(*wide) if len(got) == 3 else reference.add_rms_norm(*wide)[0]
    worth, scale = got[0].cpu(), got[1].cpu().view(*norm.shape[:-1], 1)
    step = norm.abs() / 16 + scale / 1024
    off = float(((worth - norm).abs() / (step + others.allowed * norm.abs()).clamp(min=1e-30)).max())
    return Verdict(off <= 1.0, off, 1.0, "half steps of e4m3")


def of_heads(tokens: int, heads: int, width: int, seed: int = 0) -> Case:
    """RMSNorm of heads in the middle of a merged product, between others that it must not touch."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws = Draws(seed, device, dtype)
        merged = draws.normal(1, tokens, (heads + 2) * width)
        x = merged.view(1, tokens, heads + 2, width)[:, :, 1:-1]
        return Call((x, draws.normal(width), EPS))

    return Case("rms_norm", f"{heads} heads of {width} in {tokens} tokens", {}, make)


def layer(rows: int, width: int, added: bool, weight: bool = True, bias: bool = True, seed: int = 0) -> Case:
    """LayerNorm of rows whose mean is not near 0."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws = Draws(seed, device, dtype)
        given = [draws.uniform(rows, width, low=-1.0, high=2.0) for _ in range(1 + added)]
        vectors = [draws.normal(width) if wanted else None for wanted in (weight, bias)]
        return Call((*given, *vectors, EPS))

    name = f"{rows} x {width}, {'' if weight else 'no '}weight, {'' if bias else 'no '}bias"
    return Case("add_layer_norm" if added else "layer_norm", name, {}, make)


def gated(op: str, rows: int, width: int, seed: int = 0) -> Case:
    """Gates on both sides of 0, also where they are shut."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        return Call((Draws(seed, device, dtype).normal(1, rows, 2 * width, scale=3.0),))

    return Case(op, f"{rows} x {width}", {}, make)


def turned(tokens: int, heads: int, kv_heads: int, dim: int, rotary: int, merged: bool = True, seed: int = 0) -> Case:
    """Heads that lie in one product, or each by themselves."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws = Draws(seed, device, dtype)
        both = draws.normal(tokens, heads + kv_heads, dim)
        q, k = both[:, :heads], both[:, heads:]
        angles = torch.arange(tokens)[:, None] * 3.0 ** -torch.arange(rotary // 2)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = draws.put(angles.cos(), dtype), draws.put(angles.sin(), dtype)
        return Call((q, k, cos, sin) if merged else (q.contiguous(), k.contiguous(), cos, sin), written=(0, 1))

    name = f"{tokens} tokens, heads {heads}/{kv_heads} of {dim}, {rotary} of it turned{', merged' if merged else ''}"
    return Case("rope", name, {}, make)


def cases(tiny: bool) -> Iterator[Case]:
    flags = (False, True)
    for rows, width in ((3, 48), (2, 128)) if tiny else ((64, 4096), (7, 896), (256, 8192)):
        yield summed((1, rows, width))
        for added, unit_offset, round_first in itertools.product(flags, flags, flags):
            yield rms(rows, width, added, unit_offset, round_first)
        for added, offset in ((False, False), (True, True)):
            yield narrowed(rows, width, added, offset, not offset)
        for added in flags:
            yield layer(rows, width, added)
        yield layer(rows, width, True, bias=False)
        yield layer(rows, width, False, weight=False, bias=False)
    for tokens, heads, width in ((2, 3, 16),) if tiny else ((64, 32, 128), (2048, 8, 128), (5, 4, 80)):
        yield of_heads(tokens, heads, width)
    for op in ("silu_mul", "gelu_mul", "gelu_tanh_mul"):
        for rows, width in ((3, 40), (1, 1100)) if tiny else ((64, 14336), (1, 4864), (4096, 3072)):
            yield gated(op, rows, width)
    for tokens, heads, kv_heads, dim, rotary in (
        ((3, 4, 2, 16, 16), (2, 3, 1, 24, 12)) if tiny else ((64, 32, 8, 128, 128), (2048, 16, 2, 80, 20))
    ):
        yield turned(tokens, heads, kv_heads, dim, rotary)
        yield turned(tokens, heads, kv_heads, dim, rotary, merged=False)
