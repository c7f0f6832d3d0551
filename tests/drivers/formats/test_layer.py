"""How numbers of others become ours: streams of bits, schemes, groups."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.formats.layer import cut, group_of, scheme_of, unpacked
from llmos.drivers.ops.quantized import Scheme


@given(st.integers(1, 8), st.integers(1, 70), st.integers(0, 99))
def test_numbers_of_any_width_come_out_of_words(bits: int, count: int, seed: int) -> None:
    numbers = torch.randint(0, 1 << bits, (2, count), generator=torch.Generator().manual_seed(seed))
    rows = []
    for row in numbers.tolist():
        stream = sum(number << bits * at for at, number in enumerate(row))
        words = [stream >> 32 * at & 0xFFFFFFFF for at in range(-(-count * bits // 32))]
        rows.append([word - (1 << 32) if word >> 31 else word for word in words])
    assert torch.equal(unpacked(torch.tensor(rows, dtype=torch.int32), bits, count), numbers.to(torch.uint8))


@pytest.mark.parametrize(
    ("size", "group"), [(128, 128), (256, 128), (192, 64), (96, 32), (-1, 0), (512, 0), (48, None), (16, None)]
)
def test_groups_are_cut_into_ours(size: int, group: int | None) -> None:
    assert group_of(size, 512) == group


def test_a_shift_is_there_where_zeros_differ_or_numbers_do_not_fit() -> None:
    assert scheme_of(4, 128, 8) == Scheme(4, 128) and scheme_of(4, 128, 7) == Scheme(4, 128, shift=True)
    assert scheme_of(3, 32, 7) == Scheme(4, 32) and scheme_of(5, 0, 16) == Scheme(8, 0)
    assert scheme_of(4, 64, torch.tensor([[8, 9]])) == Scheme(4, 64, shift=True)
    assert scheme_of(4, None, 8) is None and scheme_of(9, 64, 8) is None


def test_scales_are_repeated_for_smaller_groups() -> None:
    scales = torch.tensor([[1.0, 2.0]])
    assert cut(scales, 256, Scheme(4, 128), 400).tolist() == [[1.0, 1.0, 2.0, 2.0]]
    assert cut(scales[:, :1], 256, Scheme(4, 64), 256).tolist() == [[1.0] * 4]
