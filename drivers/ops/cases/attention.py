"""Cases of attention over pages, and of what writes the pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..reference_attention import LIMITS, quantize
from .case import Call, Case, Draws, Verdict, dtype_of, near

PAGE = 16
Counts = Sequence[tuple[int, int]]
"""Of each row: how many queries it has in this step, and how many tokens with them."""

ONE_STEP = 1.01
"""How far numbers may be from each other that are nearly the same before they are rounded to integers."""


class Heads(NamedTuple):
    """Query heads, key heads, and the widths of keys and values."""

    queries: int
    keys: int
    width: int
    value_width: int


class Stored(NamedTuple):
    """Pages [P, Hkv, PAGE, width] of keys and values, and their scales [P, Hkv, PAGE] where they are quantized."""

    k: Tensor
    v: Tensor
    key_scale: Tensor | None
    value_scale: Tensor | None


def stored(draws: Draws, pages: int, heads: Heads, kind: str, owned: Tensor | None = None) -> Stored:
    """Pages between which other things lie. What is not `owned` [P, PAGE] is no number: whoever reads it is seen."""
    sizes = [heads.keys * PAGE * width for width in (heads.width, heads.value_width)]
    drawn = draws.normal(pages, sum(sizes), dtype=torch.float32)
    found: list[tuple[Tensor, Tensor | None]] = []
    for part, width in zip(torch.split(drawn, sizes, dim=1), (heads.width, heads.value_width), strict=True):
        values = part.view(pages, heads.keys, PAGE, width)
        if owned is not None:
            values = values.masked_fill(~owned[:, None, :, None].to(values.device), torch.nan)
        if kind:
            numbers, scale = quantize(values, dtype_of(kind))
            found.append((apart(numbers), apart(scale)))
        else:
            found.append((apart(values.to(draws.dtype)), None))
    return Stored(found[0][0], found[1][0], found[0][1], found[1][1])


def apart(tensor: Tensor) -> Tensor:
    """The same numbers in a block where each page is followed by as much of something else."""
    block = tensor.new_zeros(tensor.shape[0], 2, tensor[0].numel())
    block[:, 1] = tensor.flatten(1)
    return block[:, 1].view(tensor.shape)


def paged(
    counts: Counts, heads: int, kv_heads: int, width: int, value_width: int = 0, window: int = 0, softcap: float = 0.0,
    sinks: bool = False, pages: str = "", seed: int = 0,
) -> Case:  # fmt: skip
    """Rows with `counts`, whose pages lie in any order; `pages`: their dtype where they are quantized."""
    sizes = Heads(heads, kv_heads, width, value_width or width)

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws = Draws(seed, device, dtype)
        owns = [-(-length // PAGE) for _, length in counts]
        order = draws.permutation(sum(owns) + 2)
        table = torch.full((len(counts), max(owns) + 1), order.pop(), dtype=torch.int32)
        owned = torch.zeros(len(order) + 1, PAGE, dtype=torch.bool)
        for row, (_, length) in enumerate(counts):
            mine = torch.tensor([order.pop() for _ in range(owns[row])], dtype=torch.int32)
            table[row, : owns[row]] = mine
            tokens = torch.arange(length)
            owned[mine[tokens // PAGE].long(), tokens % PAGE] = True
        held = stored(draws, owned.shape[0], sizes, pages, owned)
        starts = [0, *accumulate(count for count, _ in counts)]
        options: dict[str, Any] = {"window": window, "softcap": softcap}
        options |= {"sinks": draws.normal(heads)} if sinks else {}
        options |= {"key_scale": held.key_scale, "value_scale": held.value_scale} if pages else {}
        return Call(
            (
                draws.normal(starts[-1], heads, width), held.k, held.v, draws.put(table, torch.int32),
                draws.tensor(starts, torch.int32), draws.tensor([length for _, length in counts], torch.int32),
                width**-0.5,
            ),
            options,
        )  # fmt: skip

    said = f"{_rows(counts)}, {heads}/{kv_heads} heads of {width}"
    said += f" and {value_width}" if value_width else ""
    extra = {"window": window, "cap": softcap, "sinks": sinks, "pages of": pages}
    said += "".join(f", {name}{f' {value}' if value is not True else ''}" for name, value in extra.items() if value)
    return Case("paged_attention", said, _spec(sizes, pages), make)


def written(
    op: str, tokens: int, heads: int, kv_heads: int, width: int, value_width: int = 0, turned: int = 0,
    pages: str = "", seed: int = 0,
) -> Case:  # fmt: skip
    """`write_kv` or `rope_write` of so many tokens; `turned` elements of each head have angles."""
    sizes = Heads(heads, kv_heads, width, value_width or width)

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws = Draws(seed, device, dtype)
        q, k = draws.normal(tokens, heads, width), draws.normal(tokens, kv_heads, width)
        v = draws.normal(tokens, kv_heads, sizes.value_width)
        angles = draws.uniform(tokens, turned or width, low=-3.0, high=3.0, dtype=torch.float32)
        cos, sin = draws.put(angles.cos(), dtype), draws.put(angles.sin(), dtype)
        room = -(-tokens // PAGE) + 2
        held = stored(draws, room, sizes, pages)
        slots = draws.tensor(draws.permutation(room * PAGE)[:tokens], torch.int64)
        scales = {name: scale for name, scale in zip(SCALES, held[2:], strict=True) if scale is not None}
        last = (held.k, held.v, slots, *scales.values())
        if op == "write_kv":
            return Call((k, v, *last), written=(2, 3, 5, 6) if pages else (2, 3))
        return Call((q, k, cos, sin, v, *last), written=(0, 5, 6, 8, 9) if pages else (0, 5, 6))

    name = f"{tokens} tokens, {heads}/{kv_heads} heads of {width}"
    name += f" and {value_width}" if value_width else ""
    name += (f", {turned} turned" if turned else "") + (f", pages of {pages}" if pages else "")
    judge = partial(steps_apart, dtype_of(pages)) if pages else near
    return Case(op, name, _spec(sizes, pages), make, judge=judge)


SCALES = ("key_scale", "value_scale")


def steps_apart(pages: torch.dtype, expected: Any, got: Any, dtype: torch.dtype, call: Call) -> Verdict:
    """Quantized pages may be off as other numbers are, and one step of their dtype as well."""
    *others, k, v, key_scale, value_scale = got
    first = near(expected[: len(others)], tuple(others), dtype, call)
    second = near(expected[-2:], (key_scale, value_scale), dtype, call)
    worst = 0.0
    for part, scale, found, other in zip(expected[-4:-2], expected[-2:], (k, v), (key_scale, value_scale), strict=True):
        unit = scale.double()[..., None].expand_as(part)
        wanted, came = part.double() * unit, found.cpu().double() * other.cpu().double()[..., None]
        step = unit if pages == torch.int8 else torch.maximum(wanted.abs() / 8, unit / 512)
        size = torch.maximum(wanted.abs(), wanted.pow(2).mean(-1, keepdim=True).sqrt())
        off = torch.where(wanted == came, 0.0, (wanted - came).abs() - size * first.allowed) / step
        worst = max(worst, float(off.nan_to_num(nan=torch.inf).max()))
    ok = first.ok and second.ok and worst <= ONE_STEP
    what = "equal within a step" if ok else "; ".join(each.what for each in (first, second)) + f"; {worst:g} steps"
    return Verdict(ok, worst, ONE_STEP, what)


def _rows(counts: Counts) -> str:
    said = "+".join(f"{count} of {length}" for count, length in counts[:4])
    return f"{said}{' ..' if len(counts) > 4 else ''} in {len(counts)} rows" if len(counts) > 1 else said


def _spec(heads: Heads, pages: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"heads": heads.keys, "key_width": heads.width, "value_width": heads.value_width}
    return spec | ({"kv_dtype": pages} if pages else {})


def cases(tiny: bool) -> Iterator[Case]:
    mixed = [(1, 37), (5, 5), (0, 9), (3, 48), (1, 1)]
    yield paged(mixed, 6, 2, 16)
    yield paged([(1, 40), (1, 0), (1, 17)], 4, 1, 32, 16)
    yield paged(mixed, 4, 4, 16, window=7, sinks=True)
    yield paged([(20, 33)], 2, 1, 16, softcap=3.0)
    for pages in map(_name, LIMITS):
        yield paged([(1, 37), (4, 21)], 4, 2, 16, pages=pages)
        yield written("write_kv", 5, 2, 2, 24, 16, pages=pages)
        yield written("rope_write", 5, 4, 2, 16, turned=12, pages=pages)
    yield written("write_kv", 7, 3, 3, 24, 16)
    yield written("rope_write", 5, 6, 2, 16, 8, turned=16)
    yield written("rope_write", 5, 3, 2, 16, turned=8)
    if not tiny:
        yield from _large()


def _large() -> Iterator[Case]:
    """Of the widths that models have."""
    decode = [(1, 60 + 97 * row) for row in range(16)]
    for heads, kv_heads, width in ((32, 8, 128), (28, 4, 128), (12, 12, 64), (8, 4, 256), (14, 2, 64), (20, 20, 80)):
        yield paged(decode, heads, kv_heads, width)
    yield paged([(1, 9000)], 32, 8, 128)
    yield paged(decode, 32, 8, 128, window=128, softcap=30.0, sinks=True)
    yield paged(decode, 16, 16, 192, 128)
    yield paged([*decode, (300, 900)], 32, 8, 128)
    for window in (0, 200):
        yield paged([(1000, 1000), (333, 900)], 32, 8, 128, window=window)
        yield paged([(700, 700)], 16, 8, 64, window=window, sinks=True)
    yield paged([(500, 1200)], 8, 4, 256, softcap=50.0)
    for pages in map(_name, LIMITS):
        yield paged(decode, 32, 8, 128, pages=pages)
        yield paged([(300, 900)], 32, 8, 128, pages=pages)
        yield written("rope_write", 200, 32, 8, 128, turned=128, pages=pages)
    yield written("write_kv", 500, 8, 8, 128)
    yield written("rope_write", 33, 32, 8, 128, turned=64)
    yield written("rope_write", 500, 32, 8, 128, turned=128)
    yield written("rope_write", 3, 32, 32, 80, turned=20)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
