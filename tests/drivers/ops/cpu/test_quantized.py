"""Quantized linear layers in C++: the meaning of the op, bit for bit where it is exact, over schemes and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_linears import check_gradient, check_pieces, check_refusals
from tuning_runs import allocated
from torch import Tensor
from torch.nn import functional

from llmos.drivers.ops.cpu.build import FLAGS, Part
from llmos.drivers.ops.cpu.native import Native
from llmos.drivers.ops.cpu import quantized
from llmos.drivers.ops.cpu.quantized import CHUNK, MOST, PANEL, NativeQuantized, part_inputs
from llmos.drivers.ops.quantized import (
    GROUPS,
    QuantizedWeight,
    Scheme,
    concatenated,
    round_to_nearest,
    to_numbers,
)
from llmos.drivers.ops.quantized_linear import ReferenceQuantized, int8_groups
from llmos.syscalls.errors import NotSupported

DTYPES = (torch.float32, torch.bfloat16)
SCHEMES = tuple(Scheme(width, group, shift=shift) for width in (4, 8) for group in GROUPS for shift in (False, True))
SOME = (Scheme(4, 32, shift=True), Scheme(4, 128), Scheme(8, 0), Scheme(8, 64, shift=True))


def weights_of(scheme: Scheme, ins: int, outs: Sequence[int], seed: int = 0) -> list[QuantizedWeight]:
    generator = torch.Generator().manual_seed(seed)
    return [round_to_nearest(torch.randn(each, ins, generator=generator) * ins**-0.5, scheme) for each in outs]


def panels_of(weight: QuantizedWeight, scales: torch.dtype) -> Tensor:
    """The layout as it is described, in torch: [panels, parts, bytes]."""
    scheme, ins = weight.scheme, weight.ins
    part, beyond = part_inputs(ins, scheme.group), -weight.outs % PANEL
    parts, panels = -(-ins // part), -(-weight.outs // PANEL)
    padded = functional.pad(weight.whole().to(torch.uint8), (0, parts * part - ins, 0, beyond))
    lanes = padded.view(panels, PANEL, parts, -1, 4).permute(0, 2, 3, 1, 4)
    if scheme.width == 4:
        lanes = lanes[:, :, 0::2] | lanes[:, :, 1::2] << 4
    found = [lanes.reshape(panels, parts, -1)]
    for each in (weight.scale, weight.shift):
        if each is not None:
            rows = functional.pad(each.to(scales), (0, 0, 0, beyond)).view(panels, PANEL, -1).transpose(1, 2)
            found.append(rows.expand(-1, parts, -1).contiguous().view(torch.uint8))
    return torch.cat(found, dim=-1)


def check(native: Native, weights: list[QuantizedWeight], x: Tensor, bias: Tensor | None = None) -> NativeQuantized:
    """As the reference has it, within the order of float32 sums and one rounding to the dtype."""
    layer = NativeQuantized(native, weights, bias, x.dtype, "int8")
    wanted = ReferenceQuantized(weights, bias, torch.float32, "int8")(x.float())
    off = (layer(x).float() - wanted).abs()
    assert (off <= torch.finfo(x.dtype).eps / 2 * wanted.abs() + 2e-6 * wanted.abs().max()).all()
    return layer


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_it_is_what_the_reference_is(native: Native, scheme: Scheme) -> None:
    weights, bias = weights_of(scheme, 200, (24, 8, 9)), torch.randn(41)
    reference = ReferenceQuantized(weights, bias, torch.float32, "int8")
    layer = check(native, weights, torch.randn(14, 200), bias)
    assert layer.sizes == (24, 8, 9) and torch.equal(layer.unpack(), reference.unpack())
    ids = torch.tensor([[0, 40], [33, 33]])
    assert torch.equal(layer.rows(ids), reference.rows(ids))
    check(native, weights, torch.randn(2, 1, 200).bfloat16(), bias.bfloat16())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_layers_are_packed_to_the_very_bytes_of_the_layout(native: Native, threads: int, scheme: Scheme) -> None:
    """Of layers that begin within a panel, with inputs that fill no part, scales of two dtypes, rows with gaps."""
    for ins in (1, 100, 200, 1300):
        first, second, third = weights_of(scheme, ins, (24, 50, 2))
        wide = replace(second, scale=second.scale.float())
        third = replace(third, numbers=functional.pad(third.numbers, (0, 3))[:, :-3])
        layer = NativeQuantized(native, [first, wide, third], None, torch.float32)
        assert torch.equal(layer.packed, panels_of(concatenated([first, wide, third]), torch.float32))
        alone = NativeQuantized(native, [first], None, torch.float32)
        assert torch.equal(alone.packed, panels_of(first, torch.float16))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", SOME, ids=str)
def test_a_row_has_the_same_bits_in_any_batch(
    native: Native, threads: int, scheme: Scheme, dtype: torch.dtype
) -> None:
    """Rows that each thread rounds for itself, that they round together, and that they share out."""
    layer = NativeQuantized(native, weights_of(scheme, 1300, (70,)), None, dtype, "int8")
    x = torch.randn(530, 1300).to(dtype)
    whole = layer(x)
    for rows in (1, 2, 6, 7, 12, 13, 24, 25, 127, 128, 255, 256, 513):
        assert torch.equal(layer(x[:rows]), whole[:rows])
        assert torch.equal(layer(x[-rows:]), whole[-rows:])


@settings(max_examples=40)
@given(
    st.sampled_from(SCHEMES), st.integers(1, 70), st.integers(1, 300), st.integers(1, 40), st.sampled_from(DTYPES)
)
def test_any_shape(native: Native, scheme: Scheme, outs: int, ins: int, rows: int, dtype: torch.dtype) -> None:
    check(native, weights_of(scheme, ins, [outs]), torch.randn(rows, ins).to(dtype))


@pytest.mark.parametrize("group", GROUPS)
def test_inputs_are_rounded_to_the_very_numbers_of_the_reference(native: Native, group: int) -> None:
    """Weights of one number 1 in each row show what became of each input."""
    scheme = Scheme(8, group)
    ones = QuantizedWeight(
        scheme, torch.eye(160, dtype=torch.uint8) + 128, torch.ones(160, scheme.groups(160)), None, 160
    )
    x = torch.randn(64, 160) * torch.logspace(-30, 30, 64).unsqueeze(1)
    x[5], x[6, :64] = 0.0, 0.0
    numbers, scale = int8_groups(x, group)
    wanted = (numbers * scale.unsqueeze(-1)).flatten(1)[:, :160]
    assert torch.equal(NativeQuantized(native, [ones], None, torch.float32)(x), wanted)


def test_numbers_that_are_the_largest_of_all_are_summed_exactly(native: Native) -> None:
    """Far more inputs than one whole number of 32 bits could sum."""
    ins = 150_000
    scheme = Scheme(8, 0, shift=True)
    weight = QuantizedWeight(
        scheme, torch.full((3, ins), 255, dtype=torch.uint8), torch.ones(3, 1), torch.zeros(3, 1), ins
    )
    answer = NativeQuantized(native, [weight], None, torch.float32)(torch.full((1, ins), 127.0))
    assert torch.allclose(answer, torch.full((1, 3), 255.0 * 127 * ins), rtol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_matrices_compute_the_same_bits_as_vectors(
    native: Native, threads: int, scheme: Scheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = NativeQuantized(native, weights_of(scheme, 230, (70,)), torch.randn(70), torch.float32)
    x = torch.randn(300, 230)
    answers = {rows: layer(x[:rows]) for rows in (1, 13, 17, 33, 70, 300)}
    monkeypatch.setattr(NativeQuantized, "plain_matrix", True)
    for rows, wanted in answers.items():
        assert torch.equal(layer(x[:rows]), wanted)


@pytest.fixture(scope="session")
def older(native: Native) -> Native:
    """The library as a processor without AVX-512 has it."""
    flags = tuple("-march=haswell" if flag == "-march=native" else flag for flag in FLAGS)
    made = Native(Part("cpu-haswell", "quantized", frozenset(), flags))
    fits, why = made.supports({"device": "cpu", "dtype": "float32"})
    assert fits, why
    return made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", SOME, ids=str)
def test_processors_without_avx512_compute_the_same_bits(
    native: Native, older: Native, scheme: Scheme, dtype: torch.dtype
) -> None:
    weights, bias = weights_of(scheme, 530, (70,)), torch.randn(70)
    x = torch.randn(300, 530).to(dtype)
    x[7, 3], x[8, 4] = torch.nan, torch.inf
    here, there = (NativeQuantized(each, weights, bias, dtype) for each in (native, older))
    for rows in (1, 2, 5, 9, 300):
        assert torch.equal(here(x[:rows]).nan_to_num(), there(x[:rows]).nan_to_num())


def test_the_largest_numbers_do_not_overflow_without_avx512(older: Native) -> None:
    for scheme, top in ((Scheme(8, 32, shift=True), 255), (Scheme(4, 32, shift=True), 15)):
        numbers = torch.full(scheme.numbers_of(40, 128)[0], top if scheme.width == 8 else 255, dtype=torch.uint8)
        weight = QuantizedWeight(scheme, numbers, torch.ones(40, 4), torch.zeros(40, 4), 128)
        answer = NativeQuantized(older, [weight], None, torch.float32)(torch.full((3, 128), 127.0))
        assert torch.equal(answer, torch.full((3, 40), top * 127.0 * 128))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_makes_its_row_no_number(native: Native, value: float) -> None:
    layer = NativeQuantized(native, weights_of(Scheme(4, 32), 96, (40,)), None, torch.float32)
    x = torch.randn(3, 96)
    wanted = layer(x)
    x[1, 40] = value
    answer = layer(x)
    assert answer[1].isnan().all() and torch.equal(answer[::2], wanted[::2])


@pytest.mark.parametrize("size", [1e-40, 1e-38, 2.9e-37])
def test_inputs_too_small_for_a_scale_are_zero(native: Native, size: float) -> None:
    weights, x = weights_of(Scheme(8, 32), 64, (5,)), torch.full((1, 64), size)
    for layer in (NativeQuantized(native, weights, torch.arange(5.0), torch.float32),
                  ReferenceQuantized(weights, torch.arange(5.0), torch.float32, "int8")):  # fmt: skip
        assert torch.equal(layer(x), torch.arange(5.0)[None])


def test_inputs_need_not_be_dense_and_gradients_go_through(native: Native) -> None:
    layer = NativeQuantized(native, weights_of(Scheme(4, 64), 36, (40, 3)), None, torch.float32)
    wide = torch.randn(6, 99)
    for x in (wide[:, 5:41], wide[:, ::2][:, :36], wide[:0, :36]):
        assert torch.equal(layer(x), layer(x.contiguous()))
    check_gradient(layer, layer.unpack())
    check_refusals(layer)


def test_weights_are_packed_piece_by_piece_into_no_more_bytes_than_told(native: Native) -> None:
    weights = weights_of(Scheme(4, 32), 64, (CHUNK * PANEL - 5, 2, CHUNK * PANEL))
    layer = NativeQuantized(native, weights, None, torch.float32)
    assert torch.equal(layer.unpack(), ReferenceQuantized(weights, None, torch.float32, "int8").unpack())
    assert layer.nbytes == -(-sum(layer.sizes) // PANEL) * PANEL * (32 + 2 * 2)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_weights_are_unpacked_piece_by_piece(
    native: Native, scheme: Scheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_of(scheme, 200, (24, 8, 49))
    layer = NativeQuantized(native, weights, None, torch.bfloat16)
    dense = ReferenceQuantized(weights, None, torch.bfloat16, "int8").unpack()
    assert check_pieces(layer, dense) == 1
    monkeypatch.setattr(quantized, "PIECE_BYTES", PANEL * 200 * 4)
    assert check_pieces(layer, dense) == 3 and torch.equal(layer.unpack(), dense)
    check_gradient(layer, dense)


@pytest.mark.parametrize("scheme", [Scheme(8, 0), Scheme(4, 32), Scheme(4, 64, shift=True)], ids=str)
def test_unpacking_takes_what_is_told(native: Native, scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_of(scheme, 512, (512,))
    for size in (1 << 20, 1 << 18):
        monkeypatch.setattr(quantized, "PIECE_BYTES", size)
        layer = NativeQuantized(native, weights, None, torch.bfloat16)
        taken = allocated(lambda made=layer: [None for _ in made.pieces()])  # type: ignore[misc]
        assert 0.85 * layer.scratch < taken < 1.05 * layer.scratch


def test_scales_of_float32_and_mixed_ones(native: Native) -> None:
    first, second = weights_of(Scheme(8, 32, shift=True), 64, (7, 6))
    wide = to_numbers(second.dequantized(), second.scheme, second.scale.float(), second.shift)
    check(native, [first, wide], torch.randn(3, 64))


@pytest.mark.parametrize(
    ("ins", "group", "size"), [(4864, 0, 256), (896, 0, 896), (100, 0, 128), (67 * 64, 0, 64), (4864, 32, 32)]
)
def test_parts_fill_up_as_little_as_can_be(ins: int, group: int, size: int) -> None:
    assert part_inputs(ins, group) == size <= MOST


def test_it_says_what_it_does_not_serve(native: Native) -> None:
    asked = {"device": "cpu", "dtype": "float32", "kind": "int", "activations": "int8"}
    assert NativeQuantized.supports(native, asked) == (True, "")
    assert "whole numbers" in NativeQuantized.supports(native, {**asked, "kind": "float"})[1]
    assert "activations are model" in NativeQuantized.supports(native, {**asked, "activations": "model"})[1]
    assert "float16" in NativeQuantized.supports(native, {**asked, "dtype": "float16"})[1]
    with pytest.raises(NotSupported, match="whole numbers"):
        NativeQuantized(native, weights_of(Scheme(8, 0, "float"), 32, (4,)), None, torch.float32)
