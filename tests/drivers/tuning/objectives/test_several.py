"""Tasks have the losses that they have alone, each of its own outputs of the head."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import tuning_runs
from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.classes import Rows
from llmos.drivers.tuning.objectives.protocol import inputs
from llmos.drivers.tuning.objectives.several import Outputs, Part, Several
from llmos.drivers.tuning.objectives.values import Regression
from torch.nn import functional

PARTS = (
    Part("a", Rows(), 1.0, slice(0, 2)), Part("b", Rows(), 3.0, slice(2, 5)), Part("c", Regression(), 1.0, slice(5, 6)),
)  # fmt: skip


def batch(task: int) -> Batch:
    labels = [(0,), (1,)] if task < 2 else [(0.5,), (2.0,)]
    rows = zip([[3, 4, 5], [6, 7]], labels, strict=True)
    made = collate([[Example(tokens, label, whole=True)] for tokens, label in rows])
    return Batch(made.input_ids, made.position_ids, made.labels, made.documents, task=task)


def module() -> Any:
    return tuning_runs.bert("ForSequenceClassification", num_labels=6)


@pytest.mark.parametrize("task", range(3))
def test_a_batch_is_the_mean_loss_of_its_task_by_its_outputs(task: int) -> None:
    one, given = module(), batch(task)
    logits = one(**inputs(given)).logits[:, PARTS[task].places]
    if task < 2:
        wanted = functional.cross_entropy(logits, given.labels)
    else:
        wanted = functional.mse_loss(logits[:, 0], given.labels)
    found, share = Several(PARTS).loss(one, given), PARTS[task].share
    assert Several(PARTS).weight(given) == share
    torch.testing.assert_close(found.total, share * wanted)
    torch.testing.assert_close(PARTS[task].loss(one, given).total / PARTS[task].weight(given), wanted)


def test_outputs_of_other_tasks_have_no_gradient() -> None:
    one = module()
    Several(PARTS).loss(one, batch(1)).total.backward()  # type: ignore[no-untyped-call]
    gradient = one.classifier.weight.grad
    assert gradient[2:5].abs().min(1).values.max() > 0
    assert float(gradient[:2].abs().sum()) == float(gradient[5:].abs().sum()) == 0


def test_what_is_seen_of_a_module_is_the_rest_of_its_answer_too() -> None:
    one, given = module().eval(), batch(0)
    seen = Outputs(one, slice(1, 4))
    answer, whole = (each(**inputs(given), output_hidden_states=True) for each in (seen, copy.deepcopy(one)))
    torch.testing.assert_close(answer.logits, whole.logits[:, 1:4])
    torch.testing.assert_close(answer.hidden_states[-1], whole.hidden_states[-1])
    assert not seen.training and not list(seen.parameters()), "it is no part of another module"


def test_a_batch_goes_to_its_task_on_any_device() -> None:
    given = batch(2)
    assert given.to("cpu").task == 2 and Several(PARTS).prepare(given, training=True) is given
    assert PARTS[0].head == Rows().head and PARTS[1].prepare(given, training=True) is given
    sums = {"loss": 4.0, "weight": 2.0, "far": 1.0}
    assert Several(PARTS).summary(sums) == {"loss": 2.0} and PARTS[2].summary(sums) == Regression().summary(sums)
