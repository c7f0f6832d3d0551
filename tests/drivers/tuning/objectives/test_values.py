"""Numbers and classes that apply or not: the library's own losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import tuning_runs

from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.values import MultiLabel, Regression


def rows(labels: list[tuple[float, ...]]) -> Batch:
    texts = tuning_runs.sentences(len(labels))
    return collate([[Example(each.tokens, label, whole=True)] for each, label in zip(texts, labels, strict=True)])


@pytest.mark.parametrize(
    ("objective", "labels", "problem"),
    [
        (Regression(), [(0.5,), (-1.0,), (2.5,)], "regression"),
        (Regression(), [(0.5, 1.0), (-1.0, 0.0), (2.5, 3.0)], "regression"),
        (MultiLabel(), [(1.0, 0.0, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)], "multi_label_classification"),
    ],
)
def test_the_loss_is_the_librarys(objective: Any, labels: list[tuple[float, ...]], problem: str) -> None:
    batch = rows(labels)
    module = tuning_runs.bert("ForSequenceClassification", num_labels=len(labels[0]), problem_type=problem)
    tuning_runs.same_as_the_librarys(objective, module, batch, labels=batch.labels)


def test_what_is_said_of_them() -> None:
    batch = rows([(1.0, 0.0), (0.0, 0.0)])
    module = tuning_runs.bert("ForSequenceClassification", num_labels=2)
    with torch.no_grad():
        module.classifier.weight.zero_()
        module.classifier.bias.copy_(torch.tensor([1.0, -1.0]))
    assert int(MultiLabel().loss(module, batch).sums["right"]) == 3
    assert float(Regression().loss(module, batch).sums["far"]) == pytest.approx(0.0 + 1.0 + 1.0 + 1.0)
    assert MultiLabel().summary({"loss": 2.0, "weight": 4.0, "right": 3.0}) == {"loss": 0.5, "accuracy": 0.75}
    assert Regression().summary({"loss": 2.0, "weight": 4.0, "far": 3.0}) == {
        "loss": 0.5, "mean_absolute_error": 0.75,
    }  # fmt: skip
