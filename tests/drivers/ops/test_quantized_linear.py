"""The meaning of the op `quantized_linear`."""

from __future__ import annotations

import pytest
import torch
from packed_linears import check_gradient, check_pieces, check_refusals
from torch.nn import functional as F

from llmos.drivers.ops.float8 import float8_rows
from llmos.drivers.ops.quantized import FLOAT8, Scheme, round_to_nearest
from llmos.drivers.ops.quantized_linear import ReferenceQuantized, int8_groups, rounded_inputs
from llmos.syscalls.errors import BadArgument


def made(scheme: Scheme, activations: str = "model", dtype: torch.dtype = torch.float32) -> ReferenceQuantized:
    torch.manual_seed(0)
    weights = [round_to_nearest(torch.randn(outs, 70), scheme) for outs in (9, 4)]
    return ReferenceQuantized(weights, torch.randn(13).to(dtype), dtype, activations)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_a_linear_layer_of_the_dequantized_weights(dtype: torch.dtype) -> None:
    layer = made(Scheme(4, 32, shift=True), dtype=dtype)
    dense, x = layer.weight.dequantized(), torch.randn(2, 3, 70).to(dtype)
    assert layer.bias is not None and layer.sizes == (9, 4)
    assert torch.allclose(layer(x).float(), F.linear(x.float(), dense, layer.bias.float()), rtol=2**-8)
    assert torch.equal(layer.unpack(), dense.to(dtype))
    ids = torch.tensor([[0, 12], [5, 5]])
    assert torch.equal(layer.rows(ids), layer.unpack()[ids])
    assert layer.nbytes == layer.weight.nbytes + layer.bias.nbytes
    assert check_pieces(layer, dense.to(dtype)) == 1
    check_gradient(layer, layer.unpack())
    check_refusals(layer)


def test_inputs_of_eight_bits_are_whole_numbers_for_each_token_and_group() -> None:
    x = torch.tensor([[127.0, -63.5, 1.5, 0.0, 10.0, 5.0, 0.0, 0.0]])
    numbers, scale = int8_groups(x, 4)
    assert numbers.tolist() == [[[127.0, -64.0, 2.0, 0.0], [127.0, 64.0, 0.0, 0.0]]]
    assert torch.allclose(scale, torch.tensor([[1.0, 10 / 127]]))
    numbers, scale = int8_groups(torch.zeros(1, 5), 4)
    assert not numbers.any() and not scale.any()


def test_whole_numbers_times_whole_numbers_is_what_int8_means() -> None:
    layer = made(Scheme(8, 32), "int8")
    x = torch.randn(3, 70)
    numbers, scale = int8_groups(x, 32)
    weights = F.pad(layer.weight.whole() - 128, (0, 26)).unflatten(1, (-1, 32))
    products = torch.einsum("mgk,ngk->mng", numbers, weights)
    wanted = (products * scale[:, None] * layer.weight.scale.float()).sum(-1)
    assert layer.bias is not None
    assert torch.allclose(layer(x), wanted + layer.bias, rtol=1e-4, atol=1e-4)


def test_inputs_of_float8_are_rounded_for_each_token() -> None:
    x = torch.tensor([[448.0, 17.0, -3.1], [0.0, 0.0, 0.0]])
    assert torch.equal(rounded_inputs(x, 0, "float8"), x.to(FLOAT8).float())
    assert torch.equal(rounded_inputs(10 * x, 0, "float8"), 10 * x.to(FLOAT8).float())
    layer = made(Scheme(8, 0, "float"), "float8")
    assert not torch.equal(layer(torch.randn(2, 70)), layer.product(torch.randn(2, 70)))


def test_inputs_may_be_of_float8_already() -> None:
    layer, x = made(Scheme(8, 0, "float"), "float8", torch.bfloat16), torch.randn(2, 3, 70).bfloat16()
    assert torch.equal(layer(float8_rows(x)), layer(x)) and layer(x).shape == (2, 3, 13)
    for other, given in ((made(Scheme(8, 0, "float")), x), (layer, x[..., :64])):
        with pytest.raises(BadArgument, match="x is e4m3"):
            other(float8_rows(given))


def test_unknown_activations_are_refused() -> None:
    with pytest.raises(BadArgument, match="expected one of model, int8, float8"):
        made(Scheme(4, 32), "int4")
