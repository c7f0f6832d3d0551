"""What becomes of one tensor of several models: the formulas of merging, in float32.

Linear: Wortsman et al., "Model soups", 2022. Slerp: Shoemake, "Animating rotation with quaternion curves", 1985.
Ties: Yadav et al., "TIES-Merging", 2023. Dare: Yu et al., "Language Models are Super Mario", 2023.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

PARALLEL = 0.9995
"""Cosine from which on two tensors are so much alike that the arc between them is taken for a line."""

BLOCK = 1 << 20
"""Numbers that are worked on at a time: 4 MiB of each tensor in float32, however large the tensor."""
HALF = 16
"""Bits of a number's size that are counted at a time."""


def blocks(tensor: Tensor) -> list[Tensor]:
    """The numbers of a tensor in their order, as views of at most `BLOCK`."""
    flat = tensor.flatten()
    return [flat[start : start + BLOCK] for start in range(0, flat.numel(), BLOCK)]


def linear(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum."""
    whole = tensors[0].float() * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        whole.add_(tensor.float(), alpha=weight)
    return whole


def slerp_weights(first: Tensor, second: Tensor, share: float) -> tuple[float, float]:
    """The weights of two tensors, seen as vectors, that give the point at `share` (0: first, 1: second) of the arc
    between them."""
    dot = _product(first, second)
    lengths = math.sqrt(_product(first, first) * _product(second, second))
    cosine = dot / lengths if lengths else 1.0
    if abs(cosine) > PARALLEL:
        return 1 - share, share
    angle = math.acos(cosine)
    return math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)


def least_kept(base: Tensor, other: Tensor, density: float) -> float:
    """The size from which on differences to the base belong to the `density` largest; infinity when none do.

    Exact, by counting: sizes of float32 numbers are in the order of their bits.
    """
    keep = round(density * base.numel())
    if keep == 0:
        return math.inf
    high = _counted(base, other, lambda bits: bits >> HALF)
    top = _bucket(high, keep)
    left = keep - int(high[top + 1 :].sum())
    low = _counted(base, other, lambda bits: bits[bits >> HALF == top] & ((1 << HALF) - 1))
    bits = torch.tensor((top << HALF) | _bucket(low, left), dtype=torch.int32)
    return float(bits.view(torch.float32))


def ties(
    base: Tensor, others: Sequence[Tensor], weights: Sequence[float], least: Sequence[float], scale: float
) -> Tensor:
    """Trim, elect a sign, and add the mean of what agrees with it.

    Of each difference to the base what is smaller than its `least` is dropped; the sign of a place is that of the
    weighted sum; what is added, times `scale`, is the weighted mean of the differences of that sign.
    """
    start = base.float()
    differences = [other.float() - start for other in others]
    trimmed = [part * (part.abs() >= size) for part, size in zip(differences, least, strict=True)]
    total = linear(trimmed, weights)
    agreed, shares = torch.zeros_like(start), torch.zeros_like(start)
    for part, weight in zip(trimmed, weights, strict=True):
        same = (part * total) > 0
        agreed.add_(part * same, alpha=weight)
        shares.add_(same, alpha=weight)
    return start + scale * torch.where(shares == 0, 0.0, agreed / shares)


def dare(
    base: Tensor,
    others: Sequence[Tensor],
    weights: Sequence[float],
    density: float,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Of each difference to the base, places drawn at random are dropped and the others grow by 1 / `density`."""
    start = base.float()
    whole = start.clone()
    for other, weight, generator in zip(others, weights, generators, strict=True):
        kept = torch.rand(start.shape, generator=generator) < density
        whole.add_((other.float() - start) * kept, alpha=weight / density)
    return whole


def seed_of(seed: int, name: str, model: int) -> int:
    """A seed for one tensor of one model, which does not depend on the order they are merged in."""
    return zlib.crc32(f"{seed}:{model}:{name}".encode())


def low_rank(base: Tensor, a: Tensor, b: Tensor, scale: float, transposed: bool) -> Tensor:
    """A weight [N, K] (or [K, N]) and an adapter's a [r, K] and b [N, r]: the sum with `scale` * b a."""
    product = b.float() @ a.float()
    return torch.add(base.float(), product.T if transposed else product, alpha=scale)


def _product(one: Tensor, other: Tensor) -> float:
    """Of two tensors seen as vectors, in float64."""
    parts = zip(blocks(one), blocks(other), strict=True)
    return math.fsum(float(a.double() @ b.double()) for a, b in parts)


def _counted(base: Tensor, other: Tensor, key: Callable[[Tensor], Tensor]) -> Tensor:
    """How many differences have which key, of their size's bits."""
    counts = torch.zeros(1 << (32 - HALF), dtype=torch.int64)
    for start, end in zip(blocks(base), blocks(other), strict=True):
        bits = (end.float() - start.float()).abs().view(torch.int32)
        counts += key(bits).bincount(minlength=len(counts))
    return counts


def _bucket(counts: Tensor, keep: int) -> int:
    """The key of the one that is the `keep`-th largest."""
    from_top = counts.flip(0).cumsum(0)
    return len(counts) - 1 - int(torch.searchsorted(from_top, keep))
