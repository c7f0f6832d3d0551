"""Weights that are read once: what is read is right, and the memory of what was read is given back."""

from __future__ import annotations

from mmap import PAGESIZE

import torch

from llmos.drivers.engine.quantized.passing import Passing, passing
from llmos.drivers.ops.quantized import Scheme, round_to_nearest

SCHEME = Scheme(8, 128)


def test_rows_are_right_in_order_and_gone_after() -> None:
    weight = round_to_nearest(torch.randn(4096, 4096), SCHEME)
    right = weight.numbers.clone()
    taken = passing(weight)
    assert isinstance(taken, Passing)
    for start in range(0, 4096, 512):
        assert torch.equal(taken.rows(slice(start, start + 512)).numbers, right[start : start + 512])
    assert int((weight.numbers[:3584] != 0).sum()) <= 2 * PAGESIZE
    assert torch.equal(weight.numbers[3584:], right[3584:])


def test_rows_that_share_a_page_with_others_stay_until_those_are_read() -> None:
    weight = round_to_nearest(torch.randn(5200, 3300), Scheme(8, 0))
    right = weight.numbers.clone()
    taken = passing(weight)
    for start, end in ((0, 1), (1, 3), (3, 700), (700, 5200)):
        assert torch.equal(taken.rows(slice(start, end)).numbers, right[start:end])


def test_little_is_kept() -> None:
    weight = round_to_nearest(torch.randn(64, 64), SCHEME)
    assert passing(weight) is weight
    ids = torch.tensor([3, 1])
    assert torch.equal(weight.rows(ids).numbers, weight.numbers[ids])
