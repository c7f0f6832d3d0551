"""Figures of classes against counting by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.metrics import classes

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)
MANY = st.lists(st.tuples(*[st.tuples(st.booleans(), st.booleans())] * 3), min_size=1, max_size=12)


def figures(right: int, said: int, wanted: int) -> tuple[float, float, float]:
    """Precision, recall and F1 of counts; 0 where there is nothing to divide by."""
    precision, recall = right / said if said else 0.0, right / wanted if wanted else 0.0
    return precision, recall, 2 * right / (said + wanted) if said + wanted else 0.0


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@given(PAIRS)
def test_one_class_each(pairs: list[tuple[int, int]]) -> None:
    said, wanted = (torch.tensor(column) for column in zip(*pairs, strict=True))
    counted = []
    for number in {each for pair in pairs for each in pair}:
        right = sum(one == other == number for one, other in pairs)
        counted.append(figures(right, sum(s == number for s, _ in pairs), sum(w == number for _, w in pairs)))
    precision, recall, f1 = (mean(list(column)) for column in zip(*counted, strict=True))
    assert classes.single(said, wanted, 4) == pytest.approx({
        "accuracy": mean([float(one == other) for one, other in pairs]), "precision_macro": precision,
        "recall_macro": recall, "f1_macro": f1,
    }, abs=1e-6)  # fmt: skip
    table = classes.confusion(said, wanted, 4)
    assert all(table[i][j] == pairs.count((j, i)) for i, j in itertools.product(range(4), repeat=2))


@given(MANY)
def test_several_classes_each(rows: list[tuple[tuple[bool, bool], ...]]) -> None:
    said, wanted = (torch.tensor([[pair[n] for pair in row] for row in rows]) for n in (0, 1))
    counted = [
        (sum(row[n] == (True, True) for row in rows), sum(row[n][0] for row in rows), sum(row[n][1] for row in rows))
        for n in range(3)
    ]
    together = figures(*(sum(column) for column in zip(*counted, strict=True)))
    apart = [mean(list(column)) for column in zip(*(figures(*each) for each in counted), strict=True)]
    wants = {"exact_match": mean([float(all(one == other for one, other in row)) for row in rows])}
    for n, name in enumerate(("precision", "recall", "f1")):
        wants |= {f"{name}_micro": together[n], f"{name}_macro": apart[n]}
    assert classes.several(said, wanted) == pytest.approx(wants, abs=1e-6)


@given(st.lists(st.tuples(st.floats(-99, 99, width=32), st.booleans()), min_size=1, max_size=14))
def test_the_area_is_the_share_of_pairs_in_order(items: list[tuple[float, bool]]) -> None:
    """Scores may be anything; a tie counts half."""
    scores, wanted = (torch.tensor(column)[:, None] for column in zip(*items, strict=True))
    pairs = [
        1.0 if one > other else 0.5 if one == other else 0.0
        for one, of in items for other, not_of in items if of and not not_of
    ]  # fmt: skip
    area = classes.roc_auc(scores, wanted)
    assert area == (pytest.approx(mean(pairs), abs=1e-5) if pairs else None)


def test_only_classes_that_some_are_of_and_some_are_not_have_an_area() -> None:
    scores = torch.tensor([[9.0, 0.0, 0.0], [1.0, 5.0, 0.0]])
    wanted = torch.tensor([[True, True, False], [False, True, False]])
    assert classes.roc_auc(scores, wanted) == 1.0
    assert classes.roc_auc(scores, torch.ones(2, 3, dtype=torch.bool)) is None
