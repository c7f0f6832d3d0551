"""GPTQ: inputs of a layer are rounded one after the other, and what is not rounded yet makes up for the error.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022. Inputs come
in the order of how much arrives at them; scales are those of `nearest` on the weights as they were, so that groups stay
neighbours and nothing is stored about the order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.quantized import FLOAT8, FLOAT8_MAX, QuantizedWeight, Scheme, stored_scale, to_numbers
from .nearest import best_scales

BLOCK = 128
"""Inputs after which the error is passed on to all others at once."""
DAMPING = 0.01
"""Share of the mean of the diagonal that is added to it."""
ATTEMPTS = 6
"""Damping grows tenfold from one to the next."""


def gptq(weight: Tensor, scheme: Scheme, hessian: Tensor, damping: float = DAMPING) -> QuantizedWeight:
    """Weights [N, K] in numbers of the scheme; `hessian` [K, K] is the sum of x x^T over what arrived, float32.

    Raises:
        ArithmeticError: the sum is not finite.
    """
    scale, shift = best_scales(weight, scheme, hessian.diagonal())
    scale, shift = stored_scale(scale), None if shift is None else stored_scale(shift)
    order = hessian.diagonal().argsort(descending=True, stable=True)
    inverse = _upper_inverse(hessian[order][:, order], damping)
    group = order // (scheme.group or weight.shape[1])
    scales = scale.float()[:, group]
    shifts = None if shift is None else shift.float()[:, group]
    values = torch.empty_like(weight, dtype=torch.float32)
    values[:, order] = _passed_on(weight.float()[:, order], scheme, scales, shifts, inverse)
    return to_numbers(values, scheme, scale, shift)


def _passed_on(wide: Tensor, scheme: Scheme, scales: Tensor, shifts: Tensor | None, inverse: Tensor) -> Tensor:
    """The rounded weights; `wide` is used up."""
    for start in range(0, wide.shape[1], BLOCK):
        end = min(start + BLOCK, wide.shape[1])
        errors = torch.empty(wide.shape[0], end - start)
        for at in range(start, end):
            value = rounded(wide[:, at], scheme, scales[:, at], None if shifts is None else shifts[:, at])
            error = (wide[:, at] - value) / inverse[at, at]
            wide[:, at + 1 : end] -= error[:, None] * inverse[at, at + 1 : end]
            wide[:, at] = value
            errors[:, at - start] = error
        wide[:, end:] -= errors @ inverse[start:end, end:]
    return wide


def rounded(weight: Tensor, scheme: Scheme, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    """The nearest values that the scheme has, given a scale (and shift) for each weight, float32."""
    apart = weight if shift is None else weight - shift
    steps = torch.where(scale == 0, 0.0, apart / scale)
    if scheme.kind == "float":
        return steps.clamp(-FLOAT8_MAX, FLOAT8_MAX).to(FLOAT8).float() * scale
    numbers = steps.round().clamp(-scheme.middle, scheme.top - scheme.middle)
    return numbers * scale if shift is None else numbers * scale + shift


def _upper_inverse(hessian: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the inverse. Inputs at which nothing arrives take part in nothing."""
    mean = float(hessian.diagonal().mean()) or 1.0
    for attempt in range(ATTEMPTS):
        damped = hessian.clone()
        damped.diagonal().add_(damping * 10**attempt * mean)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper: Tensor
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(factor), upper=True)
            if not failed and bool(upper.isfinite().all()):
                return upper
    raise ArithmeticError(f"the products of inputs have no inverse (mean {mean:g})")


def output_error(weight: Tensor, quantized: QuantizedWeight, hessian: Tensor) -> float:
    """Squared error of the layer's outputs over their squares, for the inputs that the sum [K, K] is of."""
    wide = weight.float()
    apart = wide - quantized.dequantized()
    size = float(((wide @ hessian) * wide).sum())
    return float(((apart @ hessian) * apart).sum()) / size if size > 0 else 0.0
