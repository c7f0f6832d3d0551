"""Tokens as e4m3 numbers with a scale each."""

from __future__ import annotations

import pytest
import torch

from llmos.drivers.ops.float8 import filled, float8_rows, room_for
from llmos.drivers.ops.quantized import FLOAT8


def test_a_token_is_divided_by_its_greatest_number_over_that_of_e4m3() -> None:
    x = torch.tensor([[[448.0, 17.0, -3.1], [0.0, 0.0, 0.0]], [[-0.5, 0.25, 0.1], [1.0, 2.0, 896.0]]])
    rows = float8_rows(x)
    assert (rows.shape, rows.tokens) == (x.shape, 4)
    assert rows.scale[:4, 0].tolist() == pytest.approx([1.0, 0.0, 0.5 / 448, 2.0])
    assert torch.equal(rows.worth()[0], x[0].to(FLOAT8).float())
    assert rows.worth()[1, 1].tolist() == [1.0, 2.0, 896.0]


def test_rows_and_columns_are_filled_up_with_zeros() -> None:
    assert [filled(count) for count in (0, 1, 16, 17)] == [0, 16, 16, 32]
    rows, room = float8_rows(torch.randn(3, 20).bfloat16()), room_for(torch.randn(3, 20))
    for made in (rows, room):
        assert made.numbers.shape == (16, 32) and made.numbers.dtype == FLOAT8
        assert made.scale.shape == (16, 1) and made.scale.dtype == torch.float32
    assert not rows.numbers.float()[3:].any() and not rows.numbers.float()[:, 20:].any() and not rows.scale[3:].any()


def test_a_number_is_off_by_half_a_step_at_most_and_what_is_none_shows() -> None:
    x = torch.randn(5, 64) * torch.tensor([1e-6, 1.0, 1e4, 3.0, 1.0])[:, None]
    rows = float8_rows(x)
    assert ((rows.worth() - x).abs() <= x.abs() / 16 + rows.scale[:5] / 1024).all()
    x[4, 3] = torch.nan
    assert rows.worth().isfinite().all() and not float8_rows(x).worth()[4].isfinite().any()
