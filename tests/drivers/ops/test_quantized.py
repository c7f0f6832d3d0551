"""Weights of few bits: what is stored is what is meant."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llmos.drivers.ops.quantized import (
    BLOCK, FLOAT8, QuantizedWeight, Scheme, concatenated, pack_nibbles, round_to_nearest, stored_scale, to_numbers,
    unpack_nibbles,
)  # fmt: skip
from llmos.syscalls.errors import BadArgument

SCHEMES = [
    *(Scheme(width, group, shift=shift) for width in (4, 8) for group in (0, 32, 128) for shift in (False, True)),
    Scheme(8, 0, "float"), Scheme(8, 64, "float"),
]  # fmt: skip


def drawn(outs: int, ins: int, seed: int = 0) -> Tensor:
    return torch.randn(outs, ins, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 5), st.integers(1, 300), st.integers(0, 9))
def test_nibbles_come_back_and_rows_are_filled_up_with_zeros(outs: int, ins: int, seed: int) -> None:
    numbers = torch.randint(0, 16, (outs, ins), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    packed = pack_nibbles(numbers)
    assert packed.shape[1] == -(-ins // BLOCK) * BLOCK // 2
    back = unpack_nibbles(packed)
    assert torch.equal(back[:, :ins], numbers) and not back[:, ins:].any()


def test_a_byte_holds_an_input_and_the_one_half_a_block_later() -> None:
    packed = pack_nibbles(torch.arange(256, dtype=torch.uint8)[None] % 16)
    assert [int(byte) for byte in packed[0, :3]] == [0x00, 0x11, 0x22] and int(packed[0, 64]) == 0x00
    numbers = torch.zeros(1, 128, dtype=torch.uint8)
    numbers[0, 3], numbers[0, 67] = 5, 9
    assert int(pack_nibbles(numbers)[0, 3]) == 0x95


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_no_weight_is_further_off_than_half_a_step(scheme: Scheme) -> None:
    weight = drawn(7, 200)
    made = round_to_nearest(weight, scheme)
    made.check("x")
    step = made.scale.float().repeat_interleave(scheme.group or 200, dim=1)[:, :200]
    off = (made.dequantized() - weight).abs()
    if scheme.kind == "float":
        assert (off <= 2**-4 * weight.abs() + 2**-9 * step).all()
    else:
        assert (off <= 0.501 * step + 1e-3 * weight.abs()).all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_what_was_rounded_rounds_to_itself(scheme: Scheme) -> None:
    made = round_to_nearest(drawn(5, 150), scheme)
    again = to_numbers(made.dequantized(), scheme, made.scale, made.shift)
    assert torch.equal(again.dequantized(), made.dequantized())


def test_an_empty_group_is_zero() -> None:
    weight = drawn(3, 64)
    weight[1, 32:] = 0.0
    for shift in (False, True):
        assert not round_to_nearest(weight, Scheme(4, 32, shift=shift)).dequantized()[1, 32:].any()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_some_rows_are_those_of_all(scheme: Scheme) -> None:
    made = round_to_nearest(drawn(9, 70), scheme)
    ids = torch.tensor([8, 0, 3])
    assert torch.equal(made.rows(ids).dequantized(), made.dequantized()[ids])
    assert made.rows(slice(2, 5)).outs == 3


def test_merged_weights_stand_below_one_another_in_the_wider_scale() -> None:
    first, second = (round_to_nearest(drawn(4, 64, seed), Scheme(4, 32)) for seed in (1, 2))
    wide = QuantizedWeight(second.scheme, second.numbers, second.scale.float(), None, second.ins)
    merged = concatenated([first, wide])
    assert merged.scale.dtype == torch.float32
    assert torch.equal(merged.dequantized(), torch.cat([first.dequantized(), second.dequantized()]))
    assert concatenated([first]) is first
    with pytest.raises(BadArgument, match="one scheme"):
        concatenated([first, round_to_nearest(drawn(4, 64), Scheme(4, 64))])


def test_scales_are_half_as_long_where_they_fit() -> None:
    assert stored_scale(torch.tensor([1e-3, 0.0, 6e4])).dtype == torch.float16
    for other in (1e-5, 1e5):
        assert stored_scale(torch.tensor([1.0, other])).dtype == torch.float32


@pytest.mark.parametrize(
    "wrong", [{"width": 3}, {"width": 8, "group": 48}, {"width": 4, "kind": "float"},
              {"width": 8, "kind": "float", "shift": True}, {"width": 8, "kind": "complex"}],
)  # fmt: skip
def test_a_scheme_that_there_is_not_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadArgument, match="no scheme"):
        Scheme(**wrong)  # type: ignore[arg-type]


def test_numbers_that_do_not_fit_their_scheme_are_refused_with_the_layer() -> None:
    good = round_to_nearest(drawn(4, 64), Scheme(4, 32, shift=True))
    wrong = [
        {"numbers": good.numbers[:, :-1]}, {"numbers": good.numbers.to(torch.int8)}, {"scale": good.scale[:, :1]},
        {"shift": None}, {"scale": good.scale.double()}, {"ins": 300},
    ]  # fmt: skip
    for fields in wrong:
        with pytest.raises(BadArgument, match=r"the numbers of head are"):
            QuantizedWeight(**{**vars(good), **fields}).check("head")


def test_bits_count_scales_and_shifts_and_filling() -> None:
    assert Scheme(4, 128).bits_per_weight(256) == 4.125
    assert Scheme(4, 32, shift=True).bits_per_weight(128) == 5.0
    assert Scheme(8, 0).bits_per_weight(16, scale_bits=32) == 10.0
    assert Scheme(4, 128).bits_per_weight(64) == 8.25
    made = round_to_nearest(drawn(6, 256), Scheme(4, 32, shift=True))
    assert made.nbytes * 8 == made.scheme.bits_per_weight(256) * 6 * 256
    assert round_to_nearest(drawn(2, 8), Scheme(8, 0, "float")).numbers.dtype == FLOAT8
