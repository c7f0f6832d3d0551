"""What becomes of one tensor of several models: the formulas of merging, in float32.

Linear: Wortsman et al., "Model soups", 2022. Slerp: Shoemake, "Animating rotation with quaternion curves", 1985.
Ties: Yadav et al., "TIES-Merging", 2023. Dare: Yu et al., "Language Models are Super Mario", 2023.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

PARALLEL = 0.9995
"""Cosine from which on two tensors are so much alike that the arc between them is taken for a line."""


def linear(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum."""
    whole = tensors[0].float() * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        whole.add_(tensor.float(), alpha=weight)
    return whole


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The point at `share` (0: first, 1: second) of the arc between two tensors, seen as vectors."""
    a, b = first.float(), second.float()
    lengths = float(a.norm()) * float(b.norm())
    cosine = float((a.flatten() @ b.flatten()).item()) / lengths if lengths else 1.0
    if abs(cosine) > PARALLEL:
        return torch.lerp(a, b, share)
    angle = torch.arccos(torch.tensor(cosine, dtype=torch.float64))
    parts = (torch.sin((1 - share) * angle), torch.sin(share * angle))
    return linear([a, b], [float(part / torch.sin(angle)) for part in parts])


def ties(base: Tensor, others: Sequence[Tensor], weights: Sequence[float], density: float, scale: float) -> Tensor:
    """Trim, elect a sign, and add the mean of what agrees with it.

    Of each difference to the base the `density` largest are kept; the sign of a place is that of the weighted sum; what
    is added, times `scale`, is the weighted mean of the differences of that sign.
    """
    start = base.float()
    trimmed = [_largest(other.float() - start, density) for other in others]
    total = linear(trimmed, weights)
    agreed, shares = torch.zeros_like(start), torch.zeros_like(start)
    for part, weight in zip(trimmed, weights, strict=True):
        same = (part * total) > 0
        agreed.add_(part * same, alpha=weight)
        shares.add_(same, alpha=weight)
    return start + scale * torch.where(shares == 0, 0.0, agreed / shares)


def dare(
    base: Tensor, others: Sequence[Tensor], weights: Sequence[float], density: float, seeds: Sequence[int]
) -> Tensor:
    """Of each difference to the base, places drawn at random are dropped and the others grow by 1 / `density`."""
    start = base.float()
    whole = start.clone()
    for other, weight, seed in zip(others, weights, seeds, strict=True):
        kept = torch.rand(start.shape, generator=torch.Generator().manual_seed(seed)) < density
        whole.add_((other.float() - start) * kept, alpha=weight / density)
    return whole


def seed_of(seed: int, name: str, model: int) -> int:
    """A seed for one tensor of one model, which does not depend on the order they are merged in."""
    return zlib.crc32(f"{seed}:{model}:{name}".encode())


def low_rank(base: Tensor, a: Tensor, b: Tensor, scale: float, transposed: bool) -> Tensor:
    """A weight [N, K] (or [K, N]) and an adapter's a [r, K] and b [N, r]: the sum with `scale` * b a."""
    product = b.float() @ a.float()
    return torch.add(base.float(), product.T if transposed else product, alpha=scale)


def _largest(difference: Tensor, density: float) -> Tensor:
    """The part `density` of the values that are farthest from 0, with all that are as far as the last of them."""
    size = difference.abs().flatten()
    keep = round(density * size.numel())
    if keep >= size.numel():
        return difference
    if keep == 0:
        return torch.zeros_like(difference)
    least = size.kthvalue(size.numel() - keep + 1).values
    return difference * (difference.abs() >= least)
