"""What to take next, against all that could be taken."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.choosing import WAYS, PseudoLabel, doubt, k_centre, next_rows, pseudo_labels
from torch import Tensor

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=8)


def scores(*likely: tuple[float, ...]) -> Tensor:
    """Scores whose softmax is that."""
    return torch.tensor(likely).log()


def radius(points: Tensor, chosen: tuple[int, ...]) -> float:
    """How far any point is from the nearest chosen one."""
    return float(torch.cdist(points, points[list(chosen)]).min(1).values.max())


def test_labels_are_taken_where_the_model_is_sure() -> None:
    made = scores((0.6, 0.4), (0.1, 0.9), (0.95, 0.05), (0.2, 0.8))
    assert pseudo_labels(made, 0.75) == [
        PseudoLabel(2, 0, pytest.approx(0.95)), PseudoLabel(1, 1, pytest.approx(0.9)),
        PseudoLabel(3, 1, pytest.approx(0.8)),
    ]  # fmt: skip
    assert [each.row for each in pseudo_labels(made, 0.0, most=1)] == [2, 1]
    assert pseudo_labels(made, 0.96) == []
    assert [each.row for each in pseudo_labels(made, 0.75, temperature=2.0)] == [2, 1], "0.9 becomes 0.75"


@given(st.lists(st.tuples(*[st.floats(-9, 9, width=32)] * 3), max_size=12), st.floats(0.34, 1))
def test_no_sure_row_is_left_out(rows: list[tuple[float, ...]], least: float) -> None:
    likely = torch.tensor(rows).reshape(-1, 3).softmax(1)
    found = pseudo_labels(torch.tensor(rows).reshape(-1, 3), least)
    assert {each.row for each in found} == {n for n in range(len(rows)) if float(likely[n].max()) >= least}
    assert [each.confidence for each in found] == sorted((each.confidence for each in found), reverse=True)


@pytest.mark.parametrize("way", WAYS)
def test_doubt_goes_from_0_to_1(way: str) -> None:
    found = doubt(scores((1.0, 0.0, 0.0), (0.7, 0.2, 0.1), (0.4, 0.35, 0.25), (1 / 3, 1 / 3, 1 / 3)), way)
    assert found.tolist() == sorted(found.tolist())
    assert float(found[0]) == 0 and float(found[3]) == pytest.approx(1)


def test_doubt_is_what_its_name_says() -> None:
    made = scores((0.5, 0.3, 0.2))
    assert float(doubt(made, "margin")) == pytest.approx(0.8)
    assert float(doubt(made, "least")) == pytest.approx(0.75)
    entropy = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2)) / math.log(3)
    assert float(doubt(made, "entropy")) == pytest.approx(entropy)


@given(POINTS, st.integers(1, 4))
def test_centres_are_at_most_twice_as_far_as_the_best(rows: list[tuple[int, int]], count: int) -> None:
    points = torch.tensor(rows, dtype=torch.float64)
    found = k_centre(points, count)
    assert len(set(found)) == len(found) == min(count, len(rows))
    best = min(radius(points, some) for some in itertools.combinations(range(len(rows)), min(count, len(rows))))
    assert radius(points, tuple(found)) <= 2 * best + 1e-9


@given(POINTS, st.integers(1, 3), st.data())
def test_each_centre_is_the_farthest_from_those_before(rows: list[tuple[int, int]], count: int, data: st.DataObject,
                                                       ) -> None:  # fmt: skip
    points = torch.tensor(rows, dtype=torch.float32)
    before = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, unique=True))
    found = k_centre(points, count, before)
    assert not set(found) & set(before) and len(found) == min(count, len(rows) - len(before))
    for number, row in enumerate(found):
        near = torch.cdist(points, points[[*before, *found[:number]]]).min(1).values
        assert float(near[row]) == pytest.approx(float(near.max()), abs=1e-5)


def test_the_next_rows_are_unsure_and_differ() -> None:
    sure, unsure = (0.99, 0.01), (0.5, 0.5)
    made = scores(unsure, unsure, sure, unsure, sure, (0.45, 0.55))
    vectors = torch.tensor([[0.0, 0.0], [0.1, 0.0], [9.0, 9.0], [5.0, 0.0], [-9.0, 0.0], [0.0, 3.0]])
    assert next_rows(made, vectors, 2, pool=2) == [3, 5], "0 and 1 are alike"
    assert next_rows(made, vectors, 1, chosen=[0, 1], pool=2) == [3]
    assert set(next_rows(made, vectors, 2, pool=1)) == {0, 1}, "by doubt alone"
    assert len(next_rows(made, vectors, 99, chosen=[2])) == 5
    assert 3 not in next_rows(made, vectors, 99, chosen=[3])
