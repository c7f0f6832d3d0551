"""Rows without labels teach what the model is sure of, by the formulas of the papers."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
import tuning_runs
from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.classes import Rows, Tokens
from llmos.drivers.tuning.objectives.consistent import Consistent
from llmos.drivers.tuning.objectives.protocol import Scored, inputs
from llmos.drivers.tuning.options.unlabelled import Unlabelled
from torch.nn import functional


def batch(seed: int, tags: bool = False, unlabelled: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(3, tuning_runs.VOCABULARY, (9, 5), generator=generator).tolist()
    made = [Example(row, [n % 3 for n in row], aligned=True) if tags else Example(row, (row[0] % 3,), whole=True)
            for row in rows]  # fmt: skip
    labelled, given, changed = (collate([[one] for one in part]) for part in (made[:3], made[3:6], made[6:]))
    return dataclasses.replace(labelled, others=(given, changed)) if unlabelled else labelled


def asked(**fields: Any) -> Unlabelled:
    return Unlabelled(("raw",), **{"weight": 2.0, "confidence": 0.4, **fields})


def module(tags: bool = False) -> Any:
    return tuning_runs.bert("ForTokenClassification" if tags else "ForSequenceClassification", num_labels=3)


@pytest.mark.parametrize("tags", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_is_that_of_labels_and_of_what_the_model_is_sure_of(soft: bool, tags: bool) -> None:
    of: Scored = Tokens() if tags else Rows()
    model, rows = module(tags), batch(0, tags)
    given, changed = rows.others
    confidence = float(model(**inputs(given)).logits.detach().softmax(-1).amax(-1).flatten().median())  # half of them
    objective = Consistent(of, asked(soft=soft, sharpen=0.5, confidence=confidence))
    likely = (model(**inputs(given)).logits / 0.5).softmax(-1).detach().reshape(-1, 3)
    said = model(**inputs(changed)).logits.reshape(-1, 3)
    each = functional.cross_entropy(said, likely if soft else likely.argmax(-1), reduction="none")
    if soft:
        each = each - torch.special.entr(likely).sum(-1)
    sure = likely.amax(-1) >= confidence
    assert int(sure.sum()) > 0
    plain = of.loss(model, dataclasses.replace(rows, others=()))
    wanted = plain.total + 2.0 * of.weight(rows) * (each * sure).mean()
    found = objective.loss(model, rows)
    torch.testing.assert_close(found.total, wanted)
    assert found.sums == plain.sums and objective.weight(rows) == of.weight(rows) and objective.head == of.head


def test_what_is_to_be_said_has_no_gradient() -> None:
    one, other, rows = module(), module(), batch(0)
    Consistent(Rows(), asked(confidence=0.0)).loss(one, rows).total.backward()
    given, changed = rows.others
    goal = other(**inputs(given)).logits.argmax(-1)
    plain = Rows().loss(other, dataclasses.replace(rows, others=())).total
    (plain + 2.0 * 3 * functional.cross_entropy(other(**inputs(changed)).logits, goal)).backward()
    torch.testing.assert_close(tuning_runs.gradients(one), tuning_runs.gradients(other))


def test_who_is_sure_of_nothing_learns_from_labels_alone() -> None:
    model, rows = module(), batch(0)
    found = Consistent(Rows(), asked(confidence=0.999999)).loss(model, rows).total
    torch.testing.assert_close(found, Rows().loss(model, dataclasses.replace(rows, others=())).total)


def test_rows_that_are_held_out_are_judged_as_ever() -> None:
    model, rows = copy.deepcopy(module()).eval(), batch(0, unlabelled=False)
    objective = Consistent(Rows(), asked())
    assert objective.prepare(rows, training=False) is rows
    torch.testing.assert_close(objective.loss(model, rows).total, Rows().loss(model, rows).total)
    sums = {"loss": 3.0, "weight": 3.0, "right": 1.0, "items": 3.0}
    assert objective.summary(sums) == Rows().summary(sums)
