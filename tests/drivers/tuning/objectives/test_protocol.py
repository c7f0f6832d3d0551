"""Items with a score for each class: the loss is torch's own, what the module gets is what its rows need."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import tuning_runs
from torch import Tensor, nn

from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.protocol import Scored, average, inputs


class Table(Scored):
    """Scores are rows of a table."""

    def targets(self, batch: Batch) -> Tensor:
        return batch.labels

    def scores(self, module: nn.Module, batch: Batch, kept: Tensor) -> Tensor:
        table: Tensor = module(batch.input_ids)[kept]
        return table


def batch() -> Batch:
    made = collate([[Example([1, 2, 3], [4, -100, 1])], [Example([5], [3])]])
    return dataclasses.replace(made, labels=torch.tensor([[4, -100, 1], [3, -100, -100]]))


@pytest.mark.parametrize("fields", [{}, {"smoothing": 0.3}, {"class_weights": torch.arange(1.0, 7.0) / 7}])
def test_the_mean_is_that_of_torch(fields: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = nn.Embedding(6, 6)
    objective, given = Table(**fields), batch()
    outcome = objective.loss(module, given)
    torch_loss = nn.CrossEntropyLoss(
        weight=fields.get("class_weights"), label_smoothing=fields.get("smoothing", 0.0), ignore_index=-100
    )
    wanted = torch_loss(module(given.input_ids).flatten(0, 1), given.labels.flatten())
    torch.testing.assert_close(outcome.total / objective.weight(given), wanted)
    assert outcome.scores is not None and outcome.scores.shape == (3, 6)


def test_right_ones_are_counted() -> None:
    module = nn.Embedding(6, 6)
    given = batch()
    with torch.no_grad():
        module.weight.zero_()
        module.weight[1, 4] = module.weight[3, 0] = module.weight[5, 3] = 1.0
    sums = Table().loss(module, given).sums
    assert (int(sums["right"]), int(sums["items"])) == (2, 3)
    said = Table().summary({"loss": 6.0, "weight": 3.0, "right": 2.0, "items": 3.0})
    assert said == {"loss": 2.0, "accuracy": pytest.approx(2 / 3)}
    assert average({"loss": 0.0, "weight": 0.0}) == 0.0


def test_scores_of_few_bits_are_added_up_in_float32() -> None:
    module = nn.Embedding(6, 6, dtype=torch.bfloat16)
    assert Table().loss(module, batch()).total.dtype == torch.float32


def test_rows_of_several_examples_have_positions_and_others_a_mask() -> None:
    one, two = Example([1, 2], [1, 2]), Example([3], [3])
    packed, padded = collate([[one, two]]), collate([[one], [two]])
    assert inputs(packed).keys() == {"input_ids", "position_ids"}
    assert inputs(packed)["position_ids"].tolist() == [[0, 1, 0]]
    assert inputs(padded).keys() == {"input_ids", "attention_mask"}
    assert inputs(padded)["attention_mask"].tolist() == [[1, 1], [1, 0]]
    paired = collate([[Example([1, 2], (0,), whole=True, kinds=[0, 1])]])
    assert inputs(paired)["token_type_ids"].tolist() == [[0, 1]]
    assert inputs(tuning_runs.batches(tuning_runs.recipe())[0]).keys() == {"input_ids", "position_ids"}
