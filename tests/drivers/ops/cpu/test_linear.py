"""The linear layer in C++: the contract of all, over many shapes, and that a row's bits do not depend on the others."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_linears import check_gradient, check_linear, check_pieces, check_product

from llmos.drivers.ops.cpu import linear
from llmos.drivers.ops.cpu.linear import CHUNK, PANEL, NativeLinear
from llmos.drivers.ops.cpu.native import Native

DTYPES = (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("sizes", "ins", "bias"),
    [((40, 3, 9), 36, True), ((32,), 32, False), ((1,), 1, True), ((31, 33), 65, False), ((100,), 2201, True)],
)
def test_it_is_a_linear_layer(
    native: Native, threads: int, dtype: torch.dtype, sizes: tuple[int, ...], ins: int, bias: bool
) -> None:
    check_linear(partial(NativeLinear, native), dtype, sizes, ins, bias)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_in_any_batch(native: Native, threads: int, dtype: torch.dtype) -> None:
    """More rows than are shared out as panels, and more inputs than a block of the summed dimension."""
    weight = torch.randn(70, 2300).to(dtype)
    layer, x = NativeLinear(native, [weight], None), torch.randn(451, 2300).to(dtype)
    whole = layer(x)
    check_product(whole, x, weight, None)
    for rows in (1, 2, 3, 4, 5, 13, 14, 15, 29, 100, 448):
        assert torch.equal(layer(x[:rows]), whole[:rows])
        assert torch.equal(layer(x[-rows:]), whole[-rows:])


@settings(max_examples=30)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.sampled_from(DTYPES))
def test_any_shape(native: Native, outs: int, ins: int, rows: int, dtype: torch.dtype) -> None:
    weight, x = torch.randn(outs, ins).to(dtype), torch.randn(rows, ins).to(dtype)
    check_product(NativeLinear(native, [weight], None)(x), x, weight, None)


def test_weights_are_packed_piece_by_piece(native: Native) -> None:
    sizes = (CHUNK * PANEL - 5, 2, CHUNK * PANEL)
    weights = [torch.randn(size, 2) for size in sizes]
    layer = NativeLinear(native, weights, None)
    assert torch.equal(layer.unpack(), torch.cat(weights))
    assert layer.nbytes == -(-sum(sizes) // PANEL) * PANEL * 2 * 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_unpacked_piece_by_piece(
    native: Native, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory of a piece: the gradient of an input takes no more, whatever the size of the layer."""
    weights = [torch.randn(outs, 201).to(dtype) for outs in (70, 95)]
    layer = NativeLinear(native, weights, None)
    assert check_pieces(layer, torch.cat(weights)) == 1
    monkeypatch.setattr(linear, "PIECE_BYTES", 2 * PANEL * 202 * dtype.itemsize)
    assert (layer.piece, layer.scratch) == (64, 64 * 201 * dtype.itemsize)
    assert check_pieces(layer, torch.cat(weights)) == 3
    check_gradient(layer, torch.cat(weights))
    addresses = {piece.data_ptr() for _, piece in layer.pieces()}
    assert len(addresses) == 1


def test_what_is_unpacked_is_a_copy(native: Native) -> None:
    layer = NativeLinear(native, [torch.ones(32, 1)], None)
    layer.unpack().zero_()
    assert torch.equal(layer.unpack(), torch.ones(32, 1))


def test_it_says_what_it_does_not_serve(native: Native) -> None:
    assert NativeLinear.supports(native, {"device": "cuda", "dtype": "bfloat16"})[1] == "it runs on the CPU"
    assert "float16" in NativeLinear.supports(native, {"device": "cpu", "dtype": "float16"})[1]
    assert NativeLinear.supports(native, {"device": "cpu", "dtype": "float32"}) == (True, "")
