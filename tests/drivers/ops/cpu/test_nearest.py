"""Rounding weights in C++: the same numbers for the same scales, and scales that are as good as the reference's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llmos.drivers.ops.cpu.native import Native
from llmos.drivers.ops.cpu.nearest import NativeNearest
from llmos.drivers.ops.quantized import QuantizedWeight, Scheme, stored_scale, to_numbers
from llmos.drivers.quant.nearest import CUT, relative_error, searched

SCHEMES = [
    Scheme(4, 128), Scheme(4, 32, shift=True), Scheme(4, 0), Scheme(4, 0, shift=True), Scheme(8, 64),
    Scheme(8, 128, shift=True), Scheme(8, 0),
]  # fmt: skip


def factors(scheme: Scheme) -> list[float]:
    return [float(each) for each in torch.linspace(1.0, CUT[scheme.width], 7)]


def rounded(weight: Tensor, scheme: Scheme, scales: tuple[Tensor, Tensor | None]) -> QuantizedWeight:
    scale, shift = scales
    return to_numbers(weight, scheme, stored_scale(scale), None if shift is None else stored_scale(shift))


@given(
    st.sampled_from(SCHEMES), st.integers(1, 9), st.integers(1, 400), st.booleans(), st.booleans(), st.integers(0, 99)
)
def test_its_scales_leave_no_more_error_and_its_numbers_are_those_of_the_reference(
    native: Native, scheme: Scheme, outs: int, ins: int, half: bool, weighed: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outs, 2 * ins, generator=generator)[:, :ins]
    weight = weight.bfloat16() if half else weight
    weight[0, : ins // 2] = 0.0
    importance = torch.rand(ins, generator=generator) if weighed else None
    compiled = NativeNearest(native)
    found = compiled.best_scales(weight, scheme, importance, factors(scheme))
    mine = rounded(weight, scheme, found)
    wanted = rounded(weight, scheme, searched(weight, scheme, importance, factors(scheme)))
    error = relative_error(weight, wanted, importance)
    assert relative_error(weight, mine, importance) <= 1.01 * error + 1e-6
    same = compiled.to_numbers(weight, scheme, mine.scale, mine.shift)
    assert torch.equal(same.numbers.view(torch.uint8), mine.numbers) and same.ins == ins
    same.check("x")
    assert torch.equal(compiled.dequantized(same), same.dequantized())


def test_what_it_does_not_round_is_said(native: Native) -> None:
    compiled = NativeNearest(native)
    assert compiled.supports(torch.ones(2, 2), Scheme(8, 0, "float")) == (False, "it rounds to whole numbers")
    assert "float16" in compiled.supports(torch.ones(2, 2).half(), Scheme(8))[1]
    assert compiled.supports(torch.ones(2, 2, device="meta"), Scheme(8))[1] == "it runs on the CPU"


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_rows_do_not_depend_on_one_another(native: Native, scheme: Scheme) -> None:
    compiled, weight = NativeNearest(native), torch.randn(6, 200, generator=torch.Generator().manual_seed(1))
    whole, _ = compiled.best_scales(weight, scheme, None, factors(scheme))
    assert torch.equal(whole[2:4], compiled.best_scales(weight[2:4], scheme, None, factors(scheme))[0])
