"""Cases of `sample`, and their judge: another token than the reference's is right where rounding alone chose it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..reference_sampling import floors, gumbel
from .case import Call, Case, Draws, Verdict

ROUNDING = 2.0**-15
"""How far a score with noise may be behind the greatest one: a few roundings of numbers up to 30."""
SHARE = 1e-5
"""Relative rounding of the sums that top-p cuts by, and of min-p's logarithm."""


class Setting(NamedTuple):
    """Of one row."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 1
    counter: int = 0


USUAL = (
    Setting(), Setting(0.0, 5, 0.3), Setting(0.7, 0, 0.95), Setting(1.0, 20), Setting(1.5, 40, 0.8, 0.02, 2**63 - 1),
    Setting(0.3, 0, 1.0, 0.1, -5, 2**32 + 7), Setting(2.0, 1), Setting(1.0, 0, 1e-6), Setting(1.0, 3, 0.999, 0.0, 3),
)  # fmt: skip


def sampled(size: int, settings: Sequence[Setting], spread: float = 3.0, seed: int = 0) -> Case:
    """A row for each setting, over `size` tokens; the greater the spread, the fewer of them matter."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws = Draws(seed, device, dtype)
        return _call(draws.normal(len(settings), size, scale=spread), settings, draws)

    return Case("sample", f"{len(settings)} rows of {size}, spread {spread:g}", {}, make, judge=judge)


def tied(size: int, settings: Sequence[Setting], values: int = 4, seed: int = 0) -> Case:
    """Rows of a few whole numbers, so that many tokens, or all, are as good as each other."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws = Draws(seed, device, dtype)
        logits = draws.integers(len(settings), size, low=0, high=values).to(dtype)
        return _call(logits, settings, draws)

    return Case("sample", f"{len(settings)} rows of {size}, {values} values", {}, make, judge=judge)


def broken(size: int, seed: int = 0) -> Case:
    """Rows that are not finite in each way there is, greedy and drawn, beside some that are."""

    def make(device: torch.device, dtype: torch.dtype) -> Call:
        draws = Draws(seed, device, dtype)
        logits = draws.normal(8, size)
        for row, bad in ((1, math.nan), (2, math.inf), (5, math.nan), (6, math.inf)):
            logits[row, size // 2] = bad
        logits[3] = logits[7] = -math.inf
        logits[0, 1:], logits[4, : size // 2] = -math.inf, -math.inf
        return _call(logits, [*[Setting(0.0)] * 4, *[Setting(1.0, 5, 0.9)] * 4], draws)

    return Case("sample", f"rows of {size} that are not finite", {}, make, judge=judge)


def _call(logits: Tensor, settings: Sequence[Setting], draws: Draws) -> Call:
    dtypes = (torch.float32, torch.int32, torch.float32, torch.float32, torch.int64, torch.int64)
    columns = zip(*settings, strict=True)
    return Call((logits, *(draws.tensor(column, dtype) for column, dtype in zip(columns, dtypes, strict=True))))


def judge(expected: Any, got: Any, dtype: torch.dtype, call: Call) -> Verdict:
    """Tokens of greedy and of broken rows must be equal; a drawn one may be as good as the best to within rounding."""
    (wanted,), (found,) = expected, got
    logits, temperature, *filters, seed, counter = (each.cpu() for each in call.args)
    found = found.cpu()
    worst, what = 0.0, "equal"
    for row in (wanted != found).nonzero().flatten().tolist():
        off = math.inf
        if 0 <= int(found[row]) < logits.shape[1] and float(temperature[row]) > 0.0 and int(wanted[row]) >= 0:
            only = slice(row, row + 1)
            noise = gumbel(seed[only], counter[only], logits.shape[1])[0]
            cuts = [each[only] for each in filters]
            off = _behind(logits[row].float(), temperature[only], cuts, noise, int(found[row]))
        if off >= worst:
            worst, what = off, f"row {row}: token {int(found[row])}, expected {int(wanted[row])}"
    return Verdict(worst <= ROUNDING, worst, ROUNDING, what)


def _behind(row: Tensor, temperature: Tensor, filters: Sequence[Tensor], noise: Tensor, token: int) -> float:
    """How far a token is behind the best of those that are kept for sure; infinite when it cannot have been kept."""
    scores = (row - row.max()) / temperature
    top_k, top_p, min_p = filters

    def floor(off: float) -> Tensor:
        share = torch.where(top_p < 1.0, (top_p.double() * (1.0 + off)).clamp(max=1.0 - 2.0**-24).float(), top_p)
        return floors(scores[None], top_k, share, min_p * (1.0 - off))

    if bool(scores[token] < floor(SHARE) - ROUNDING):
        return math.inf
    best = torch.where(scores >= floor(-SHARE), scores + noise, -torch.inf).max()
    return max(0.0, float(best - scores[token] - noise[token]))


def cases(tiny: bool) -> Iterator[Case]:
    if tiny:
        yield sampled(40, USUAL)
        yield replace(sampled(700, USUAL, spread=0.3), dtypes=("float32",))
        yield replace(tied(300, USUAL), dtypes=("bfloat16",))
        yield replace(tied(600, USUAL[2:4], values=1), dtypes=("float16",))
        yield broken(30)
        return
    many = [each._replace(counter=row) for row, each in enumerate(USUAL * 28)]
    for size in (32_000, 128_256, 262_144):
        yield sampled(size, many[:64])
        yield sampled(size, many[:1])
    yield sampled(128_256, many, spread=0.5)
    yield sampled(151_936, [Setting(1.0, 20_000), Setting(1.5, 100_000, 0.99), Setting(3.0, 0, 0.999)], spread=0.2)
    yield tied(50_257, USUAL)
    yield tied(50_257, USUAL, values=1)
    yield broken(128_256)
