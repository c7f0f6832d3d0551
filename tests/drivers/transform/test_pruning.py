"""Masks and scores of pruning, against the same written out number by number."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.transform import pruning

seeds = st.integers(0, 1000)


def drawn(seed: int, rows: int, columns: int, coarse: bool = False) -> torch.Tensor:
    found = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return (found * 2).round() if coarse else found


@given(seeds, st.integers(1, 5), st.integers(1, 9), st.floats(0, 0.99), st.booleans())
def test_exactly_the_share_of_each_row_goes_and_nothing_larger_than_what_stays(
    seed: int, rows: int, columns: int, share: float, coarse: bool
) -> None:
    score = drawn(seed, rows, columns, coarse).abs()
    mask = pruning.smallest(score, share)
    for values, gone in zip(score.tolist(), mask.tolist(), strict=True):
        ranked = sorted(range(columns), key=lambda place: (values[place], place))
        assert [place for place in range(columns) if gone[place]] == sorted(ranked[: round(share * columns)])
    whole = pruning.smallest_of_all(score, share)
    assert int(whole.sum()) == round(share * score.numel())
    assert not whole.any() or whole.all() or score[whole].max() <= score[~whole].min()


@given(seeds, st.integers(1, 4), st.integers(1, 17))
def test_two_of_each_four_go(seed: int, rows: int, columns: int) -> None:
    score = drawn(seed, rows, columns).abs()
    mask = pruning.two_of_four(score)
    whole = columns // 4 * 4
    assert not mask[:, whole:].any()
    for row in range(rows):
        for start in range(0, whole, 4):
            four = score[row, start : start + 4]
            assert mask[row, start : start + 4].nonzero().flatten().tolist() == sorted(four.argsort()[:2].tolist())


def test_wanda_weighs_by_the_inputs() -> None:
    score = pruning.wanda(torch.tensor([[1.0, -2.0], [3.0, 0.5]]), torch.tensor([10.0, 1.0]))
    assert score.tolist() == [[10.0, 2.0], [30.0, 0.5]]


def test_the_error_is_the_part_that_is_cut_off() -> None:
    weight, mask = torch.tensor([[3.0, 4.0]]), torch.tensor([[True, False]])
    assert pruning.relative_error(weight, mask) == pytest.approx(0.6)
    assert pruning.relative_error(weight, mask, torch.tensor([0.0, 1.0])) == 0
    assert pruning.relative_error(torch.zeros(1, 2), mask) == 0


def test_heads_are_scored_by_what_they_can_write() -> None:
    groups, each, depth, width = 3, 2, 4, 10
    values, outputs = drawn(1, groups * depth, width), drawn(2, width, groups * each * depth)
    found = pruning.head_scores(values, outputs, groups)
    for group in range(groups):
        value = values[group * depth : (group + 1) * depth]
        wanted = 0.0
        for head in range(group * each, (group + 1) * each):
            wanted += float((outputs[:, head * depth : (head + 1) * depth] @ value).norm())
        assert math.isclose(float(found[group]), wanted, rel_tol=1e-4)
