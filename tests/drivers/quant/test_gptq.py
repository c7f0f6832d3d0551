"""GPTQ against a plain computation by its definition, and what it is for."""

from __future__ import annotations

import pytest
import torch

from llmos.drivers.ops.quantized import Scheme, round_to_nearest
from llmos.drivers.quant import gptq as module
from llmos.drivers.quant.gptq import gptq, output_error, rounded
from llmos.drivers.quant.nearest import best_scales, nearest

SCHEMES = (Scheme(4, 32), Scheme(4, 64, shift=True), Scheme(8, 0), Scheme(8, 0, "float"))


def case(outs: int = 24, ins: int = 160, tokens: int = 400, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and the products of inputs that depend on one another, some of them large."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(ins, ins, generator=generator) * 0.3 + torch.eye(ins)
    x = torch.randn(tokens, ins, generator=generator) @ mixed
    x[:, 7] *= 8
    return torch.randn(outs, ins, generator=generator), x.T @ x


@pytest.mark.parametrize("scheme", SCHEMES)
def test_outputs_lose_less_than_by_the_nearest(scheme: Scheme) -> None:
    weight, hessian = case()
    plain = output_error(weight, nearest(weight, scheme, hessian.diagonal()), hessian)
    found = gptq(weight, scheme, hessian)
    found.check("x")
    assert output_error(weight, found, hessian) < 0.75 * plain


def test_it_is_its_definition() -> None:
    """One input after the other: what is left is solved anew by least squares for the error of the one."""
    weight, hessian = case(3, 40)
    scheme = Scheme(4, 32)
    scale, _ = best_scales(weight, scheme, hessian.diagonal())
    scales = scale.half().float().repeat_interleave(32, dim=1)[:, :40]
    damped = (hessian + torch.eye(40) * 0.01 * hessian.diagonal().mean()).double()
    wide, left = weight.double(), hessian.diagonal().argsort(descending=True).tolist()
    while left:
        at = left[0]
        value = rounded(wide[:, at].float(), scheme, scales[:, at]).double()
        inverse = torch.linalg.inv(damped[left][:, left])
        error = (wide[:, at] - value) / inverse[0, 0]
        wide[:, left] -= error[:, None] * inverse[0]
        wide[:, at] = value
        left.pop(0)
    found = gptq(weight, scheme, hessian).dequantized()
    assert float((found.double() - wide).abs().gt(1e-3).float().mean()) < 0.02  # ties of rounding aside


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, hessian = case()
    whole = gptq(weight, Scheme(4, 32), hessian).dequantized()
    monkeypatch.setattr(module, "BLOCK", 32)
    assert float((gptq(weight, Scheme(4, 32), hessian).dequantized() != whole).float().mean()) < 0.02


def test_inputs_that_never_come_and_inputs_that_are_copies_do_no_harm() -> None:
    weight, hessian = case()
    hessian[5], hessian[:, 5] = 0, 0
    hessian[9], hessian[:, 9] = hessian[8], hessian[:, 8]
    found = gptq(weight, Scheme(4, 32), hessian).dequantized()
    assert found.isfinite().all()
    plain = nearest(weight, Scheme(4, 32), hessian.diagonal()).dequantized()
    assert torch.equal(found[:, 5], plain[:, 5]), "the nearest, where nothing arrives"
    assert gptq(weight, Scheme(4, 32), torch.zeros(160, 160)).dequantized().isfinite().all()
    with pytest.raises(ArithmeticError):
        gptq(weight, Scheme(4, 32), hessian * float("nan"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_values_are_those_that_the_scheme_has(scheme: Scheme) -> None:
    weight = case()[0]
    made = round_to_nearest(weight, scheme)
    group = scheme.group or weight.shape[1]
    scale = made.scale.float().repeat_interleave(group, dim=1)[:, :160]
    shift = None if made.shift is None else made.shift.float().repeat_interleave(group, dim=1)[:, :160]
    torch.testing.assert_close(rounded(weight, scheme, scale, shift), made.dequantized())
    assert not rounded(weight, Scheme(4, 32), torch.zeros_like(weight)).any()


def test_output_error_is_that_of_outputs() -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight = torch.randn(50, 64, generator=generator), torch.randn(8, 64, generator=generator)
    made = round_to_nearest(weight, Scheme(4, 32))
    wanted = (x @ (weight - made.dequantized()).T).square().sum() / (x @ weight.T).square().sum()
    assert output_error(weight, made, x.T @ x) == pytest.approx(float(wanted), rel=1e-3)
    assert output_error(weight, made, torch.zeros(64, 64)) == 0.0
