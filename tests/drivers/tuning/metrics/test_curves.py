"""Curves of scores, against cases that were reckoned by hand and torchmetrics."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llmos.drivers.tuning.metrics.curves import calibration, curves
from torchmetrics.functional.classification import (
    binary_auroc, binary_average_precision, binary_precision_recall_curve, binary_roc, multiclass_calibration_error,
)  # fmt: skip

SCORES, WANTED = torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True])


def test_a_case_by_hand() -> None:
    """The example of scikit-learn's documentation of roc_auc_score and average_precision_score: 0.75 and 0.83."""
    found = curves(SCORES, WANTED)
    assert found is not None
    assert found.roc == [(0.0, 0.0), (0.0, 0.5), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)]
    assert found.precision_recall == [(0.5, 1.0), (0.5, 0.5), (1.0, pytest.approx(2 / 3)), (1.0, 0.5)]
    assert found.auc == 0.75 and found.average_precision == pytest.approx(5 / 6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40))
def test_as_torchmetrics_has_them(items: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([score / 8 for score, _ in items])
    wanted = torch.tensor([flag for _, flag in items])
    found = curves(scores, wanted, points=1000)
    if found is None:
        assert wanted.all() or not wanted.any()
        return
    false, right, _ = binary_roc(scores, wanted.int())
    assert found.roc == [pytest.approx(each) for each in zip(false.tolist(), right.tolist(), strict=True)]
    precision, recall, _ = binary_precision_recall_curve(scores, wanted.int())
    both = zip(recall.flip(0)[1:].tolist(), precision.flip(0)[1:].tolist(), strict=True)
    mine = found.precision_recall
    theirs = list(both)
    assert mine == [pytest.approx(each) for each in theirs]
    assert found.auc == pytest.approx(float(binary_auroc(scores, wanted.int())))
    assert found.average_precision == pytest.approx(float(binary_average_precision(scores, wanted.int())))
    moved = curves(torch.exp(3 * scores), wanted, points=1000)
    assert moved == found


def test_few_points_stay_of_many() -> None:
    generator = torch.Generator().manual_seed(1)
    wanted = torch.rand(5000, generator=generator) > 0.7
    scores = torch.randn(5000, generator=generator) + wanted
    whole, few = curves(scores, wanted, 10_000), curves(scores, wanted, 33)
    assert whole is not None and few is not None
    assert len(whole.roc) == 5001 and 25 <= len(few.roc) <= 33 and len(few.precision_recall) <= 33
    assert few.roc[0] == (0.0, 0.0) and few.roc[-1] == (1.0, 1.0) and set(few.roc) <= set(whole.roc)
    across, up = (torch.tensor([point[n] for point in few.roc]) for n in (0, 1))
    assert few.auc == whole.auc == pytest.approx(float(torch.trapezoid(up, across)), abs=0.01)


def test_calibration() -> None:
    """Of four: two said with 0.9, one of them right; two with 0.6, both right."""
    likely = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    found = calibration(likely.log(), torch.tensor([1, 1, 0, 0]))
    assert found.bins == [(2, pytest.approx(0.6), 1.0), (2, pytest.approx(0.9), 0.5)]
    assert found.error == pytest.approx(0.4)
    generator = torch.Generator().manual_seed(1)
    scores, wanted = torch.randn(200, 3, generator=generator), torch.randint(3, (200,), generator=generator)
    theirs = multiclass_calibration_error(scores.softmax(1), wanted, 3, n_bins=10, norm="l1")
    assert calibration(scores, wanted).error == pytest.approx(float(theirs), abs=1e-5)
