"""Rare classes count more, and an item counts 1 in the mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.data.example import IGNORED, Example
from llmos.drivers.tuning.data.weights import class_weights, counts_of, weights_of
from training_data import recipe

COUNTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=6).filter(any)


def test_rows_and_tokens_are_counted() -> None:
    rows = [Example((1, 2), (label,), whole=True) for label in (0, 2, 2)]
    assert counts_of(rows, 4) == (1, 0, 2, 0)
    assert counts_of([Example((5, 6, 7), (1, IGNORED, 0), aligned=True)], 2) == (1, 1)


@given(COUNTS, st.sampled_from(["balanced", "effective"]))
def test_an_item_counts_1_in_the_mean(counts: list[int], how: str) -> None:
    weights = class_weights(counts, how)
    assert sum(w * n for w, n in zip(weights, counts, strict=True)) == pytest.approx(sum(counts))
    order = sorted((n, -w) for n, w in zip(counts, weights, strict=True) if n)
    assert [-w for _, w in order] == sorted((-w for _, w in order), reverse=True), "rarer is heavier"
    assert all(w == 1.0 for w, n in zip(weights, counts, strict=True) if not n)


@given(COUNTS)
def test_balanced_classes_count_alike(counts: list[int]) -> None:
    there = [n for n in counts if n]
    for weight, count in zip(class_weights(counts, "balanced"), counts, strict=True):
        assert not count or weight * count == pytest.approx(sum(counts) / len(there))


def test_very_rare_classes_are_spared_by_their_effective_number() -> None:
    balanced, effective = (class_weights((1, 10_000), how) for how in ("balanced", "effective"))
    assert balanced[0] / balanced[1] == pytest.approx(10_000)
    assert effective[0] / effective[1] == pytest.approx(1000, rel=0.01)


def test_a_recipe_asks_for_them() -> None:
    rows = [Example((1,), (label,), whole=True) for label in (0, 1, 1, 1)]
    assert weights_of(recipe("classification"), rows, 2) is None
    asked = recipe("classification", options={"class_weights": "balanced"})
    assert weights_of(asked, rows, 2) == (2.0, pytest.approx(2 / 3))
