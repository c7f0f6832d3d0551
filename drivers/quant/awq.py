"""Scales of inputs that make quantizing easier; the layer before takes them back.

AWQ protects the weights whose inputs are large: Lin et al., "AWQ: Activation-aware Weight Quantization", 2023.
SmoothQuant moves outliers of the inputs into the weights, for inputs of 8 bits: Xiao et al., "SmoothQuant", 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops.quantized import QuantizedWeight, Scheme
from .gptq import output_error
from .nearest import nearest

SHARES = tuple(share / 10 for share in range(1, 10))
"""Powers that are tried."""
SEARCH_TRIES = 4
LEAST = 1e-4
SMOOTHING = 0.5


def awq_scales(weights: Sequence[tuple[Tensor, Scheme]], mean: Tensor, hessian: Tensor) -> Tensor | None:
    """Factors [K] by which weights [N, K] of layers with one input are to be multiplied, and the input divided.

    `mean` [K] is the mean size of each input, `hessian` [K, K] the sum of x x^T. The powers of `mean` are tried, and
    the one with the least error of outputs is taken; None where none is better than nothing.
    """
    best, least = None, _error(weights, torch.ones_like(mean), hessian)
    for share in SHARES:
        factors = _centred(mean.clamp(min=LEAST).pow(share))
        error = _error(weights, factors, hessian)
        if error < least:
            best, least = factors, error
    return best


def smooth_scales(weights: Sequence[Tensor], largest: Tensor, share: float = SMOOTHING) -> Tensor:
    """The same factors [K] from the largest size of each input and of its weights, each to its power."""
    sizes = torch.stack([weight.float().abs().amax(dim=0) for weight in weights]).amax(dim=0)
    return _centred((largest.clamp(min=LEAST).pow(share) / sizes.clamp(min=LEAST).pow(1 - share)).clamp(min=LEAST))


def best_nearest(
    weight: Tensor, scheme: Scheme, hessian: Tensor, tries: int | None = None
) -> tuple[QuantizedWeight, float]:
    """The nearest numbers by scales that weigh errors by what arrives at each input, or by plain ones: those that do
    less to the outputs, and what they do (`output_error`). So never worse than the nearest numbers alone."""
    found = [nearest(weight, scheme, importance, tries) for importance in (hessian.diagonal(), None)]
    errors = [output_error(weight, each, hessian) for each in found]
    at = errors.index(min(errors))
    return found[at], errors[at]


def _error(weights: Sequence[tuple[Tensor, Scheme]], factors: Tensor, hessian: Tensor) -> float:
    scaled = hessian / factors[:, None] / factors
    return sum(best_nearest(weight.float() * factors, scheme, scaled, SEARCH_TRIES)[1] for weight, scheme in weights)


def _centred(factors: Tensor) -> Tensor:
    """Around 1, so that nothing gets out of the range of narrow numbers."""
    return factors / (factors.max() * factors.min()).sqrt()
