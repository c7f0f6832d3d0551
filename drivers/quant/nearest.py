"""Round to nearest, with the scales of least squared error instead of those that cut nothing off.

For each group a few scales are tried. Numbers q are chosen by each of them, and then the best scale for these numbers
is known in closed form: with importances h, s = sum(h w q) / sum(h q q), which leaves the error sum(h w w) -
sum(h w q) ** 2 / sum(h q q). The numbers are rounded anew by the scale that won (the search of llama.cpp's
`make_qx_quants`, github.com/ggml-org/llama.cpp). With a shift, the same with a line through two moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..ops.cpu.native import Native
from ..ops.cpu.nearest import NativeNearest
from ..ops.quantized import QuantizedWeight, Scheme, grouped, largest_scale, round_to_nearest, stored_scale, to_numbers

CHUNK = 1 << 20
"""Weights that are searched at a time."""
TRIES = {4: 16, 8: 4}
"""Scales that are tried, by width."""
CUT = {4: 0.55, 8: 0.95}
"""The smallest scale tried, as a share of the one that cuts nothing off."""


def nearest(
    weight: Tensor, scheme: Scheme, importance: Tensor | None = None, tries: int | None = None
) -> QuantizedWeight:
    """Weights [N, K] in numbers of the scheme with the least squared error.

    `importance` [K] weighs the error of each input (the mean square of what arrives there); `tries` scales are tried
    for each group, 0 takes the largest. Numbers of floating kind have their steps everywhere and gain nothing by it.
    """
    if scheme.kind == "float":
        return round_to_nearest(weight, scheme)
    scale, shift = largest_scale(weight, scheme) if tries == 0 else best_scales(weight, scheme, importance, tries)
    scale, shift = stored_scale(scale), None if shift is None else stored_scale(shift)
    native = compiled()
    if native.supports(weight, scheme)[0]:
        return native.to_numbers(weight, scheme, scale, shift)
    return to_numbers(weight, scheme, scale, shift)


def dequantized(weight: QuantizedWeight) -> Tensor:
    """`weight.dequantized()`, in C++ where that can be had: the same bits."""
    fits, _ = compiled().supports(weight.scale.new_empty(0, dtype=torch.float32), weight.scheme)
    return compiled().dequantized(weight) if fits else weight.dequantized()


@cache
def compiled() -> NativeNearest:
    """The same in C++, where it can be had."""
    return NativeNearest(Native())


def best_scales(
    weight: Tensor, scheme: Scheme, importance: Tensor | None = None, tries: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Scales (and shifts) [N, groups] float32 of least error."""
    count = TRIES[scheme.width] if tries is None else tries
    factors = torch.linspace(1.0, CUT[scheme.width], count).tolist()
    if compiled().supports(weight, scheme)[0]:
        return compiled().best_scales(weight, scheme, importance, factors)
    return searched(weight, scheme, importance, factors)


def searched(
    weight: Tensor, scheme: Scheme, importance: Tensor | None, factors: list[float]
) -> tuple[Tensor, Tensor | None]:
    """`best_scales` of these factors in torch."""
    weights = None if importance is None else grouped(importance.float().clamp(min=1e-12)[None], scheme.group)
    parts = [_best(rows, scheme, weights, factors) for rows in torch.split(weight, max(1, CHUNK // weight.shape[1]))]
    shifts = [shift for _, shift in parts if shift is not None]
    return torch.cat([scale for scale, _ in parts]), torch.cat(shifts) if shifts else None


def _best(rows: Tensor, scheme: Scheme, weights: Tensor | None, factors: list[float]) -> tuple[Tensor, Tensor | None]:
    parts = grouped(rows.float(), scheme.group)
    if weights is None:
        filled = rows.shape[1] % (scheme.group or rows.shape[1])
        weights = grouped(parts.new_ones(1, rows.shape[1]), scheme.group) if filled else parts.new_ones(1, 1, 1)
    scale, shift = largest_scale(rows, scheme)
    if shift is not None:
        return _with_shift(parts, scheme, weights, scale, shift, factors)
    return _without(parts, scheme, weights, scale, factors), None


def _without(parts: Tensor, scheme: Scheme, weights: Tensor, largest: Tensor, factors: list[float]) -> Tensor:
    """Both signs of a scale are tried: there is one number more below the middle than above it."""
    far = parts.gather(-1, parts.abs().argmax(-1, keepdim=True)).squeeze(-1)
    sign = torch.where(far > 0, -1.0, 1.0)
    best, least = largest, torch.full_like(largest, float("inf"))
    low, high = -scheme.middle, scheme.middle - 1
    squares = (weights * parts * parts).sum(-1)
    for factor in factors:
        tried = largest * factor * (sign if factor < 1 else 1.0)
        numbers = (parts * _inverse(tried).unsqueeze(-1)).round_().clamp_(low, high)
        numbers_weighed = numbers * weights
        product, square = (numbers_weighed * parts).sum(-1), (numbers_weighed * numbers).sum(-1)
        scale = torch.where(square > 0, product / square, tried)
        error = torch.where(square > 0, squares - product * scale, squares)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def _with_shift(
    parts: Tensor, scheme: Scheme, weights: Tensor, scale: Tensor, shift: Tensor, factors: list[float]
) -> tuple[Tensor, Tensor]:
    """The range shrinks towards its middle; scale and shift are those of the line of least squares."""
    best = _Line(scale, shift)
    least = torch.full_like(scale, float("inf"))
    total = weights.expand(1, parts.shape[1], parts.shape[2]).sum(-1)
    mean = (weights * parts).sum(-1) / total
    for factor in factors:
        tried, low = scale * factor, shift + scale * scheme.top * (1 - factor) / 2
        numbers = ((parts - low.unsqueeze(-1)) * _inverse(tried).unsqueeze(-1)).round_().clamp_(0, scheme.top)
        average = (weights * numbers).sum(-1) / total
        apart = numbers - average.unsqueeze(-1)
        spread = (weights * apart * apart).sum(-1)
        slope = torch.where(spread > 0, (weights * apart * parts).sum(-1) / spread, tried)
        line = _Line(slope, mean - slope * average)
        kept = parts - numbers * slope.unsqueeze(-1) - line.shift.unsqueeze(-1)
        error = (weights * kept * kept).sum(-1)
        better = error < least
        best, least = best.where(better, line), torch.where(better, error, least)
    return best.scale, best.shift


@dataclass(frozen=True)
class _Line:
    scale: Tensor
    shift: Tensor

    def where(self, better: Tensor, other: _Line) -> _Line:
        return _Line(torch.where(better, other.scale, self.scale), torch.where(better, other.shift, self.shift))


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0.0, 1.0 / scale)


def relative_error(weight: Tensor, quantized: QuantizedWeight, importance: Tensor | None = None) -> float:
    """Squared error over squares, each input weighed by its importance: 0 where nothing is lost."""
    wide = weight.float()
    apart, whole = (wide - quantized.dequantized()).square(), wide.square()
    if importance is not None:
        apart, whole = apart * importance, whole * importance
    size = float(whole.sum())
    return float(apart.sum()) / size if size else 0.0
