"""What to take next, against all that could be taken."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.choosing import doubt, k_centre, next_rows
from llmos.drivers.tuning.options.unlabelled import DOUBTS
from torch import Tensor

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=8)


def scores(*likely: tuple[float, ...]) -> Tensor:
    """Scores whose softmax is that."""
    return torch.tensor(likely).log()


def radius(points: Tensor, chosen: tuple[int, ...]) -> float:
    """How far any point is from the nearest chosen one."""
    return float(torch.cdist(points, points[list(chosen)]).min(1).values.max())


@pytest.mark.parametrize("way", DOUBTS)
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


@given(POINTS, st.integers(1, 4))
def test_each_centre_is_the_farthest_from_those_before(rows: list[tuple[int, int]], count: int) -> None:
    points = torch.tensor(rows, dtype=torch.float32)
    first, *rest = found = k_centre(points, count)
    from_mean = (points - points.mean(0)).norm(dim=1)
    assert float(from_mean[first]) == pytest.approx(float(from_mean.max()), abs=1e-5)
    for number, row in enumerate(rest, 1):
        near = torch.cdist(points, points[found[:number]]).min(1).values
        assert float(near[row]) == pytest.approx(float(near.max()), abs=1e-5)


def test_the_next_rows_are_unsure_and_differ() -> None:
    unsure = torch.tensor([1.0, 1.0, 0.1, 1.0, 0.1, 0.9])
    vectors = torch.tensor([[0.0, 0.0], [0.1, 0.0], [9.0, 9.0], [5.0, 0.0], [-9.0, 0.0], [0.0, 3.0]])
    assert next_rows(unsure, vectors, 2, pool=2) == [3, 5], "0 and 1 are alike"
    assert set(next_rows(unsure, vectors, 2, pool=1)) == {0, 1}, "by doubt alone"
    assert sorted(next_rows(unsure, vectors, 99)) == list(range(6))
