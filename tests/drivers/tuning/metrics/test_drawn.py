"""Figures of many draws at once are those that each draw has by itself."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llmos.drivers.tuning.metrics import by_objective, drawn
from llmos.drivers.tuning.metrics.by_objective import Gathered

TAGS = ("O", "B-X", "I-X", "B-Y", "I-Y")


def gathered(objective: str, seed: int, items: int = 24) -> Gathered:
    """Something random that an evaluation might have gathered; rows have one, two or three items where they may."""
    of = torch.Generator().manual_seed(seed)
    rows = torch.arange(items)
    scores = torch.randn(items, len(TAGS), generator=of).round(decimals=1)
    classes = torch.randint(len(TAGS), (items,), generator=of)
    if objective == "classification":
        return Gathered(scores, classes, rows=rows)
    if objective == "token-classification":
        rows = (rows * 2 // 3) * 3  # of one and of two items, with gaps between numbers
        return Gathered(scores, classes, rows=rows, names=TAGS)
    if objective == "multi-label":
        return Gathered(scores, (torch.rand(scores.shape, generator=of) > 0.6).float(), rows=rows)
    if objective == "regression":
        return Gathered(scores[:, 0], scores[:, 1] + scores[:, 0], rows=rows)
    if objective == "question-answering":
        first = torch.randint(4, (2, items), generator=of)
        return Gathered(*(torch.stack([each, each + classes % 3], 1) for each in first), rows=rows)
    return Gathered(classes + 1 if objective == "embedding" else scores[:, 0], classes, rows=rows)


OBJECTIVES = sorted(name for name in by_objective.MAIN if drawn.known(name))


def test_all_that_judge_items_can_be_drawn() -> None:
    assert set(by_objective.MAIN) - set(OBJECTIVES) == {"causal-lm", "masked-lm", "seq2seq"}


@pytest.mark.parametrize("objective", OBJECTIVES)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_each_draw_has_the_figures_of_its_rows(objective: str, seed: int) -> None:
    """Compared with torchmetrics on rows that really are repeated."""
    given_ = gathered(objective, seed)
    rows = drawn.rows_of(given_)
    counts = torch.cat([torch.ones(1, rows, dtype=torch.float64), drawn.draws(rows, 4, seed)])
    found = drawn.figures(objective, given_, counts)
    _, place = given_.rows.unique_consecutive(return_inverse=True)
    for number, row_counts in enumerate(counts.long()):
        repeated = [
            ((place == row).nonzero()[:, 0], row * 1000 + copy)
            for row, times in enumerate(row_counts.tolist()) for copy in range(times)
        ]  # fmt: skip
        items = torch.cat([at for at, _ in repeated])
        names = torch.cat([torch.full_like(at, name) for at, name in repeated])
        alone = Gathered(given_.said[items], given_.wanted[items], rows=names, names=given_.names)
        wanted = by_objective.figures(objective, alone)
        mine = {name: float(values[number]) for name, values in found.items()}
        assert {name: value for name, value in mine.items() if not math.isnan(value)} == pytest.approx(wanted, abs=2e-5)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30))
def test_an_area_depends_on_the_order_alone(items: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([float(score) for score, _ in items])
    of = torch.tensor([flag for _, flag in items])
    ones = torch.ones(1, len(items), dtype=torch.float64)
    area = float(drawn.area(scores, of, ones))
    if of.all() or not of.any():
        assert math.isnan(area)
        return
    assert 0 <= area <= 1
    assert float(drawn.area(scores**3 + 7, of, ones)) == area
    assert float(drawn.area(-scores, of, ones)) == pytest.approx(1 - area)


def test_draws_are_as_many_rows_as_there_are() -> None:
    counts = drawn.draws(7, 50, seed=3)
    assert counts.shape == (50, 7) and bool((counts.sum(1) == 7).all()) and bool((counts > 1).any())
    assert torch.equal(counts, drawn.draws(7, 50, seed=3)) and not torch.equal(counts, drawn.draws(7, 50, seed=4))


def test_a_span_needs_numbers() -> None:
    values = torch.arange(101, dtype=torch.float64)
    assert drawn.span(values, 0.9) == pytest.approx([5.0, 95.0])
    assert drawn.span(torch.cat([values, torch.full((102,), torch.nan)]), 0.9) == ()
