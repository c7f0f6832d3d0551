"""Inputs rounded to e4m3 by a kernel, and layers that multiply them by weights of e4m3 through the library."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from llmos.drivers.engine.surgery.layers import FusedLayer
from llmos.drivers.ops.float8 import Float8Rows
from llmos.drivers.ops.quantized import FLOAT8, Scheme, round_to_nearest
from llmos.drivers.ops.quantized_linear import ReferenceQuantized, rounded_inputs
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable
from llmos.drivers.ops.triton import float8, norms, quantized
from llmos.drivers.ops.triton.float8 import Float8Linear
from llmos.drivers.ops.triton.ops import register_triton
from llmos.syscalls.errors import BadArgument

from ....engine.surgery.test_layers import floating

SCHEME = Scheme(8, 0, "float")


def test_numbers_are_rounded_to_the_nearest_of_e4m3() -> None:
    """Every number that has one, what lies between, and ties, from the smallest to the greatest."""
    every = torch.arange(127).to(torch.uint8).view(FLOAT8).float()
    between = torch.cat([(every[1:] + every[:-1]) / 2, every * 1.01, every * 0.99]).clamp(max=448.0)
    row = torch.cat([every, -every, between, -between])[None]
    made = float8.rounded(row)
    assert float(made.scale[0]) == 1.0
    assert torch.equal(made.worth(), row.to(FLOAT8).float())


def test_each_token_has_a_scale_and_the_rest_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 40)
    x[1] = 0.0
    x[2, 7] = 1e3
    x[3] *= 1e-5
    for widest in (float8.WIDEST, 16):  # a row at once, and in several steps
        monkeypatch.setattr(float8, "WIDEST", widest)
        made = float8.rounded(x)
        numbers = made.numbers.float()
        assert numbers.shape == (16, 48) and made.scale.shape == (16, 1)
        assert torch.equal(made.worth(), rounded_inputs(x, 0, "float8"))
        assert not numbers[5:].any() and not numbers[:, 40:].any()


def test_what_is_no_number_shows_in_its_token_alone() -> None:
    layer = Float8Linear([round_to_nearest(torch.randn(16, 32), SCHEME)], None, torch.bfloat16)
    x = torch.randn(4, 32).bfloat16()
    x[1, 3] = torch.nan
    for rows in (x, norms.rms_norm_float8(x, torch.ones(32).bfloat16(), 1e-5)):
        assert layer(rows).isfinite().any(1).tolist() == [True, False, True, True]
    x[2, 5] = torch.inf
    assert not layer(x)[2].isfinite().any()


@pytest.mark.parametrize(("outs", "ins"), [([24, 9], 40), pytest.param([32], 64, marks=pytest.mark.slow)])
def test_layers_answer_as_the_reference(outs: list[int], ins: int) -> None:
    weights = [round_to_nearest(torch.randn(count, ins) / 6, SCHEME) for count in outs]
    x, bias = torch.randn(2, 3, ins).bfloat16(), torch.randn(sum(outs)).bfloat16()
    for added in (None, bias):
        reference = ReferenceQuantized(weights, added, torch.bfloat16, "float8")
        layer = quantized.quantized_linear(weights, added, torch.bfloat16, "float8")
        assert isinstance(layer, Float8Linear)
        torch.testing.assert_close(layer(x), reference(x), atol=2e-2, rtol=1.6e-2)
        assert torch.equal(layer.unpack(), reference.unpack())
        assert torch.equal(layer.rows(torch.tensor([[0], [5]])), reference.rows(torch.tensor([[0], [5]])))
        assert layer(x[:0]).shape == (0, 3, sum(outs))
        weight = torch.randn(ins).bfloat16()
        assert torch.equal(layer(norms.rms_norm_float8(x, weight, 1e-5)), layer(norms.rms_norm(x, weight, 1e-5)))
        assert layer.nbytes == sum(buffer.nbytes for buffer in layer.buffers())


def test_what_it_does_not_serve_is_refused() -> None:
    asked = {"device": "cpu", "dtype": "bfloat16", "activations": "float8", "kind": "float", "group": 0}
    assert quantized.supports(asked) == (True, "")
    for other in ({"dtype": "float16"}, {"kind": "int"}, {"group": 128}, {"device": "cuda"}):
        fits, reason = quantized.supports({**asked, **other})
        assert not fits and reason
    floats, whole = (round_to_nearest(torch.randn(16, 32), scheme) for scheme in (SCHEME, Scheme(8, 0)))
    for weight, dtype in ((floats, torch.float16), (whole, torch.bfloat16)):
        with pytest.raises(BadArgument, match="activations float8"):
            Float8Linear([weight], None, dtype)


@pytest.mark.slow
def test_norms_of_fused_layers_round_for_the_products_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of kernels alone answers the same bits; what its products still round are the inputs of the last two."""
    ops = OpTable()
    register_reference(ops)
    register_triton(ops)
    model, answer = floating(ops, num_hidden_layers=1)
    (layer,) = model.model.layers
    calls, seen, counted = [0], [], float8.rounded

    def counting(x: torch.Tensor) -> Float8Rows:
        calls[0] += 1
        return counted(x)

    def compare(module: nn.Module, given: tuple[Any, ...], options: dict[str, Any], _answer: Any) -> None:
        calls[0], answers = 0, []
        for narrow in (False, True):
            answers.append(FusedLayer(module, ops, {"device": "cpu", "dtype": "bfloat16"}, narrow)(*given, **options))
            seen.append(calls[0])
        assert torch.equal(*answers) and answers[0].any()

    monkeypatch.setattr(float8, "rounded", counting)
    layer.register_forward_hook(compare, with_kwargs=True)
    answer()
    assert seen == [4, 6] * 2  # of two steps, each by both
