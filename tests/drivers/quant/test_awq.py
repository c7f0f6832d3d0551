"""Factors that make quantizing easier."""

from __future__ import annotations

import pytest
import torch

from llmos.drivers.ops.quantized import Scheme
from llmos.drivers.quant.awq import awq_scales, best_nearest, smooth_scales
from llmos.drivers.quant.gptq import output_error
from llmos.drivers.quant.nearest import nearest


def outliers() -> tuple[torch.Tensor, torch.Tensor]:
    """Weights, and inputs of which a few are large."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 128, generator=generator)
    x[:, ::40] *= 30
    return torch.randn(32, 128, generator=generator), x


def test_awq_loses_less_on_large_inputs() -> None:
    weight, x = outliers()
    scheme, hessian = Scheme(4, 128), x.T @ x
    factors = awq_scales([(weight, scheme)], x.abs().mean(dim=0), hessian)
    assert factors is not None and factors[::40].min() > factors[1:40].max()
    scaled = hessian / factors[:, None] / factors
    found = output_error(weight * factors, nearest(weight * factors, scheme, scaled.diagonal()), scaled)
    assert found < 0.75 * output_error(weight, nearest(weight, scheme, hessian.diagonal()), hessian)


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("large", [False, True])
def test_never_worse_than_the_nearest_numbers_alone(width: int, large: bool) -> None:
    """Inputs that depend on each other make scales by importance lose as well as win."""
    generator = torch.Generator().manual_seed(3)
    weight, x = torch.randn(24, 128, generator=generator), torch.randn(200, 128, generator=generator)
    x = (x + 3 * x.roll(1, dims=1)) * (torch.arange(128) % 40 == 0).mul(20).add(1) if large else x.cumsum(1)
    hessian, scheme = x.T @ x, Scheme(width, 32)
    plain, weighed = (
        output_error(weight, nearest(weight, scheme, each), hessian) for each in (None, hessian.diagonal())
    )
    made, error = best_nearest(weight, scheme, hessian)
    assert error == min(plain, weighed) == output_error(weight, made, hessian)


def test_awq_leaves_alone_what_gains_nothing() -> None:
    weight, _ = outliers()
    signs = torch.randint(0, 2, weight.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    exact = signs * 7 * 0.125  # numbers of the scheme
    assert awq_scales([(exact, Scheme(4, 128))], torch.rand(128) + 0.5, torch.eye(128)) is None


def test_smoothing_shares_the_range_between_inputs_and_weights() -> None:
    weight, x = outliers()
    largest = x.abs().amax(dim=0)
    factors = smooth_scales([weight[:16], weight[16:]], largest)
    inputs, weights = largest / factors, (weight * factors).abs().amax(dim=0)
    torch.testing.assert_close(inputs / weights, (inputs / weights)[:1].expand(128), rtol=1e-3, atol=1e-3)
    assert inputs.max() / inputs.min() < 0.3 * (largest.max() / largest.min())
    assert smooth_scales([torch.zeros(4, 128)], torch.zeros(128)).isfinite().all()
