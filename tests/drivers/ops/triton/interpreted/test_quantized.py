"""Linear layers of 4- and 8-bit weights in Triton, beside the contract (`test_contract`): every way to compute a
product, what is filled up, the order of sums, and what is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from packed_linears import check_gradient, check_pieces
from slow_cases import slow_but

from llmos.drivers.ops.cases.case import check
from llmos.drivers.ops.cases.quantized import quantized
from llmos.drivers.ops.quantized import FLOAT8, QuantizedWeight, Scheme, round_to_nearest
from llmos.drivers.ops.quantized_linear import ReferenceQuantized
from llmos.drivers.ops.table import OpTable
from llmos.drivers.ops.triton import quantized as layers
from llmos.drivers.ops.triton.quantized import TritonQuantized
from llmos.drivers.ops.triton.quantized_choice import WHOLE, Choice
from llmos.syscalls.errors import BadArgument

CPU = torch.device("cpu")
SCHEMES = (
    Scheme(4, 32, shift=True), Scheme(8, 64), Scheme(4, 128, shift=True), Scheme(4, 0, shift=True), Scheme(8, 0),
    Scheme(8, 128, "float"),
)  # fmt: skip
WHOLES = (Scheme(4, 64, shift=True), Scheme(8, 0), Scheme(8, 0, "float"))
WAYS = (
    (2, Choice("gemv", 4, 2, 64, 2)), (3, Choice("gemv", 4, 4, 128)), (5, Choice("gemm", 16, 16, 32, 3)), (3, WHOLE)
)  # fmt: skip


def made(scheme: Scheme, outs: int = 24, ins: int = 200, bias: bool = False, dtype: torch.dtype = torch.float32) -> Any:
    weight = round_to_nearest(torch.randn(outs, ins, generator=torch.Generator().manual_seed(3)) / 8, scheme)
    return weight, TritonQuantized([weight], torch.arange(outs) / 8 if bias else None, dtype)


@pytest.mark.parametrize(
    ("scheme", "dtype"), slow_but([(SCHEMES[0], "float32")], product(SCHEMES, ["float32", "bfloat16"])), ids=str
)
def test_every_way_computes_the_same_product(scheme: Scheme, dtype: str) -> None:
    """Parts that end within a row, blocks of outputs and tokens that are not full, inputs that are no whole block."""
    for tokens, way in WAYS:

        class Forced(TritonQuantized):
            def choice(self, tokens: int, way: Choice = way) -> Choice:
                return way

        case = quantized(scheme, tokens, 200, [9, 4], "model", bias=True)
        verdict = check(case, Forced, ReferenceQuantized, CPU, dtype)
        assert verdict.ok, (way, verdict)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_become_floating_exactly(dtype: torch.dtype) -> None:
    """All numbers that bits can stand for, by each kernel."""
    every = torch.arange(256).to(torch.uint8).expand(16, 256).contiguous()
    floats = torch.tensor([i for i in range(256) if i & 127 != 127] + [0, 0]).to(torch.uint8).expand(16, 256)
    ones = torch.ones(16, 1)
    for scheme, numbers in (
        (Scheme(8, 0), every), (Scheme(8, 0, shift=True), every), (Scheme(4, 0), every),
        (Scheme(4, 0, shift=True), every),
        (Scheme(8, 0, "float"), floats.contiguous().view(FLOAT8)),
    ):  # fmt: skip
        ins = numbers.shape[1] * 8 // scheme.width
        weight = QuantizedWeight(scheme, numbers, ones, 0 * ones if scheme.shift else None, ins)
        layer = TritonQuantized([weight], None, dtype)
        wanted = weight.dequantized()
        assert torch.equal(layer.unpack().float(), wanted)
        for at in (3, 64, 255, 0):
            x = torch.zeros(1, ins, dtype=dtype)
            x[0, at] = 1.0
            for way in (Choice("gemv", 16, 1, 256), Choice("gemm", 16, 16, 64)):
                assert torch.equal(layer.computed(x, way)[0].float(), wanted[:, at]), (scheme, at, way)


def test_rows_are_those_of_the_weights() -> None:
    weight, layer = made(Scheme(4, 64, shift=True))
    ids = torch.tensor([[3, 3, 23], [0, 1, 2]])
    torch.testing.assert_close(layer.rows(ids), weight.dequantized()[ids])
    assert layer.rows(ids[:0]).shape == (0, 3, 200)


@pytest.mark.parametrize(
    ("scheme", "dtype"), slow_but([(WHOLES[0], torch.float32)], product(WHOLES, [torch.float32, torch.bfloat16])),
    ids=str,
)  # fmt: skip
def test_gradients_of_inputs_are_those_of_the_weights(
    scheme: Scheme, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of weights that are made whole at once, and in pieces."""
    weight, layer = made(scheme, bias=True, dtype=dtype)
    torch.testing.assert_close(layer.unpack(), weight.dequantized().to(dtype))
    check_gradient(layer, layer.unpack())
    assert check_pieces(layer, layer.unpack()) == 1
    monkeypatch.setattr(layers, "PIECE_BYTES", 7 * 200 * dtype.itemsize)
    assert check_pieces(layer, layer.unpack()) == 4 and layer.scratch == 7 * 200 * dtype.itemsize
    check_gradient(layer, layer.unpack())


def test_large_layers_are_made_whole_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "PIECE_BYTES", 5 * 200 * 4)
    for bias in (False, True):
        weight, layer = made(Scheme(8, 32), bias=bias)
        x = torch.randn(3, 200)
        wanted = x @ weight.dequantized().T + (torch.arange(24) / 8 if bias else 0.0)
        torch.testing.assert_close(layer.computed(x, WHOLE), wanted)


def test_strides_leading_dimensions_and_no_tokens() -> None:
    weight, layer = made(Scheme(4, 128))
    x = torch.randn(200, 6).T
    torch.testing.assert_close(layer(x), x @ weight.dequantized().T)
    torch.testing.assert_close(layer(x.reshape(2, 3, 200)), layer(x).view(2, 3, 24))
    apart = torch.randn(2, 400)[:, :200]
    torch.testing.assert_close(layer(apart), apart @ weight.dequantized().T)
    assert layer(x[:0]).shape == (0, 24)


def test_a_token_has_the_same_bits_in_any_company() -> None:
    """Of one way: a block's other tokens do not change the order of its sums."""
    _, layer = made(Scheme(4, 32))
    x, way = torch.randn(9, 200), Choice("gemm", 16, 16, 32, 2)
    assert torch.equal(layer.computed(x, way)[4:6], layer.computed(x[4:6].contiguous(), way))


def test_what_is_held_is_counted() -> None:
    weight, layer = made(Scheme(4, 128, shift=True), ins=256, bias=True)
    assert layer.nbytes == weight.nbytes + 24 * 4
    assert sum(buffer.nbytes for buffer in layer.buffers()) == layer.nbytes


def test_other_activations_are_refused() -> None:
    for scheme, activations in ((Scheme(8, 0), "float8"), (Scheme(8, 0, "float"), "int8")):
        with pytest.raises(BadArgument, match="as they are"):
            TritonQuantized([made(scheme)[0]], None, torch.bfloat16, activations)
    table = OpTable()
    layers.register(table)
    served = table.implementation("quantized_linear", "triton").supports
    asked = {"device": "cpu", "dtype": "bfloat16", "kind": "int"}
    assert all(served({**asked, "activations": each}) == (True, "") for each in ("model", "int8"))
    assert "int8" in served({**asked, "kind": "float", "activations": "int8"})[1]
