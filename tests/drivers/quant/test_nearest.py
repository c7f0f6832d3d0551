"""Scales of least error."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.ops.quantized import Scheme, round_to_nearest
from llmos.drivers.quant.nearest import nearest, relative_error

INTS = (
    Scheme(4, 32), Scheme(4, 128), Scheme(4, 64, shift=True), Scheme(4, 0), Scheme(8, 0), Scheme(8, 128),
    Scheme(8, 32, shift=True),
)  # fmt: skip


def weights(outs: int = 32, ins: int = 200, seed: int = 0) -> torch.Tensor:
    return torch.randn(outs, ins, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scheme", INTS)
def test_less_is_lost_than_by_scales_that_cut_nothing_off(scheme: Scheme) -> None:
    weight = weights()
    found, plain = nearest(weight, scheme), round_to_nearest(weight, scheme)
    found.check("x")
    gained = relative_error(weight, plain) / relative_error(weight, found)
    assert gained > (1.1 if scheme.width == 4 else 1.0)


def test_four_bits_with_one_scale_of_all_gain_most() -> None:
    weight = weights(64, 512)
    scheme = Scheme(4, 0)
    plain = relative_error(weight, round_to_nearest(weight, scheme))
    assert relative_error(weight, nearest(weight, scheme)) < 0.7 * plain


@pytest.mark.parametrize("scheme", [Scheme(4, 32), Scheme(4, 32, shift=True)])
def test_what_the_numbers_can_hold_is_held(scheme: Scheme) -> None:
    numbers = torch.randint(0, 16, (8, 64), generator=torch.Generator().manual_seed(3)).float()
    numbers[:, ::32], numbers[:, 1::32] = 0, 15
    weight = numbers * 0.25 - 1 if scheme.shift else (numbers - 8) * 0.25
    torch.testing.assert_close(nearest(weight, scheme).dequantized(), weight, rtol=0, atol=1e-3)


def test_importance_moves_the_error_to_where_it_matters_less() -> None:
    weight, scheme = weights(), Scheme(4, 64)
    importance = torch.where(torch.arange(200) % 4 == 0, 100.0, 0.1)
    plain, weighed = nearest(weight, scheme), nearest(weight, scheme, importance)
    assert relative_error(weight, weighed, importance) < 0.9 * relative_error(weight, plain, importance)
    assert relative_error(weight, weighed) > relative_error(weight, plain)


def test_floating_numbers_and_no_tries_are_plain() -> None:
    weight = weights()
    for scheme, tries in ((Scheme(8, 0, "float"), None), (Scheme(4, 32), 0)):
        found, plain = nearest(weight, scheme, tries=tries), round_to_nearest(weight, scheme)
        assert torch.equal(found.dequantized(), plain.dequantized())


def test_rows_do_not_depend_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, scheme = weights(), Scheme(4, 32)
    whole = nearest(weight, scheme)
    monkeypatch.setattr("llmos.drivers.quant.nearest.CHUNK", 500)
    assert torch.equal(nearest(weight, scheme).dequantized(), whole.dequantized())


@given(st.sampled_from(INTS), st.integers(0, 1 << 30), st.sampled_from([0.0, 1e-6, 1.0, 1e4]))
def test_any_weights_stay_finite_and_never_get_worse(scheme: Scheme, seed: int, size: float) -> None:
    weight = weights(4, 70, seed) * size
    weight[0] = 0
    weight[1, :35] = size
    found = nearest(weight, scheme)
    assert found.dequantized().isfinite().all() and not found.dequantized()[0].any()
    assert relative_error(weight, found) <= relative_error(weight, round_to_nearest(weight, scheme)) * 1.001 + 1e-9


def test_relative_error() -> None:
    weight = torch.tensor([[3.0, 4.0]])
    none = nearest(torch.zeros(1, 2), Scheme(8, 32))
    assert relative_error(weight, none) == 1.0 and relative_error(torch.zeros(1, 2), none) == 0.0
    assert relative_error(weight, none, torch.tensor([0.0, 1.0])) == 1.0
