"""Inputs rounded to e4m3 by a kernel, and layers that multiply them by weights of e4m3 through the library."""

from __future__ import annotations

import pytest
import torch

from llmos.drivers.ops.quantized import FLOAT8, Scheme, round_to_nearest
from llmos.drivers.ops.quantized_linear import ReferenceQuantized, rounded_inputs
from llmos.drivers.ops.triton import float8, quantized
from llmos.drivers.ops.triton.float8 import Float8Linear
from llmos.syscalls.errors import BadArgument

SCHEME = Scheme(8, 0, "float")


def test_numbers_are_rounded_to_the_nearest_of_e4m3() -> None:
    """Every number that has one, what lies between, and ties, from the smallest to the greatest."""
    every = torch.arange(127).to(torch.uint8).view(FLOAT8).float()
    between = torch.cat([(every[1:] + every[:-1]) / 2, every * 1.01, every * 0.99]).clamp(max=448.0)
    row = torch.cat([every, -every, between, -between])[None]
    numbers, scale = float8.rounded(row)
    assert float(scale[0]) == 1.0
    assert torch.equal(numbers[0, : row.shape[1]].float(), row[0].to(FLOAT8).float())


def test_each_token_has_a_scale_and_the_rest_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 40)
    x[1] = 0.0
    x[2, 7] = 1e3
    x[3] *= 1e-5
    for widest in (float8.WIDEST, 16):  # a row at once, and in several steps
        monkeypatch.setattr(float8, "WIDEST", widest)
        numbers, scale = float8.rounded(x)
        assert numbers.shape == (16, 48) and scale.shape == (16, 1)
        assert torch.equal((numbers.float() * scale)[:5, :40], rounded_inputs(x, 0, "float8"))
        assert not numbers[5:].float().any() and not numbers[:, 40:].float().any()


@pytest.mark.parametrize(("outs", "ins"), [([24, 9], 40), ([32], 64)])
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
