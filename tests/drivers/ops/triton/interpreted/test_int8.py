"""Whole numbers times inputs that are rounded to int8 by a kernel, beside the contract (`test_contract`)."""

from __future__ import annotations

import pytest
import torch
from packed_linears import check_gradient

from llmos.drivers.ops.cases.case import check
from llmos.drivers.ops.cases.quantized import quantized
from llmos.drivers.ops.quantized import Scheme, round_to_nearest
from llmos.drivers.ops.quantized_linear import ReferenceQuantized, int8_groups
from llmos.drivers.ops.triton import int8
from llmos.drivers.ops.triton.quantized import TritonQuantized
from llmos.drivers.ops.triton.quantized_choice import Choice

CPU = torch.device("cpu")
SCHEMES = (Scheme(4, 32, shift=True), Scheme(8, 128), Scheme(8, 0))
WAYS = ((3, Choice("gemm", 16, 16, 32)), (5, Choice("gemm", 32, 16, 32, 2)))


@pytest.mark.parametrize("group", [0, 32, 128])
def test_inputs_become_the_whole_numbers_of_the_reference(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "WIDEST", 64)
    x = torch.randn(4, 200, generator=torch.Generator().manual_seed(1)).bfloat16()
    x[1] = 0.0
    x[2, :128] *= 1e-30
    x[3] = torch.arange(200) - 99.5
    made = int8.rounded(x, 256, group)
    numbers, scale = int8_groups(x, group)
    assert torch.equal(made.numbers[:, :200].float(), numbers.flatten(1)[:, :200]) and not made.numbers[:, 200:].any()
    assert made.scale.shape == (4, 256 // group if group else 1)
    assert torch.equal(made.scale[:, : scale.shape[1]], scale) and not made.scale[:, scale.shape[1] :].any()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_products_are_those_of_the_reference(scheme: Scheme) -> None:
    """Parts that end within a row, blocks that are not full, inputs that are no whole block."""
    for tokens, way in WAYS:

        class Forced(TritonQuantized):
            def choice(self, tokens: int, way: Choice = way) -> Choice:
                return way

        case = quantized(scheme, tokens, 200, [9, 4], "int8", bias=True)
        for dtype in ("float32", "bfloat16"):
            verdict = check(case, Forced, ReferenceQuantized, CPU, dtype)
            assert verdict.ok, (way, dtype, verdict)


def test_sums_of_whole_numbers_are_exact() -> None:
    """With scales that are powers of two nothing is rounded, as long as the answer can be held."""
    scheme = Scheme(8, 64)
    weight = round_to_nearest(torch.randint(-127, 128, (20, 192)).float(), scheme)
    weight.scale.fill_(0.5)
    x = torch.randint(-127, 128, (17, 192)).float()
    x[:, ::64] = 127.0
    layer = TritonQuantized([weight], None, torch.float32, "int8")
    assert torch.equal(layer(x), (x.double() @ weight.dequantized().double().T).float())


def test_what_is_no_number_shows_in_its_token_alone() -> None:
    for scheme in SCHEMES:
        layer = TritonQuantized([round_to_nearest(torch.randn(16, 128), scheme)], None, torch.float32, "int8")
        x = torch.randn(3, 128)
        x[1, 3], x[2, 77] = torch.nan, -torch.inf
        assert layer(x).isfinite().any(1).tolist() == [True, False, False]


def test_gradients_of_inputs_are_those_of_the_weights() -> None:
    """Rounding counts as if it were not there."""
    layer = TritonQuantized([round_to_nearest(torch.randn(9, 64), Scheme(8, 32))], None, torch.float32, "int8")
    check_gradient(layer, layer.unpack())
