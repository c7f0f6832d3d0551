"""Both ends of an answer, by the library's own loss of each row alone."""

from __future__ import annotations

import copy

import pytest
import torch
import tuning_runs

from llmos.drivers.tuning.data.batches import collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.answers import Answers

ROWS = [Example([3, 4, 5, 6, 7], (1, 3), whole=True), Example([8, 9, 10], (2, 2), whole=True)]


def test_padding_is_no_answer_and_the_rest_is_the_librarys() -> None:
    module = tuning_runs.bert("ForQuestionAnswering")
    other = copy.deepcopy(module)
    losses = []
    for row in ROWS:
        first, last = (torch.tensor([int(place)]) for place in row.labels)
        ids = torch.tensor([list(row.tokens)])
        losses.append(other(input_ids=ids, start_positions=first, end_positions=last).loss)
    wanted = sum(losses) / len(losses)
    wanted.backward()
    loss, made = tuning_runs.learnt(Answers(), module, collate([[row] for row in ROWS]))
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(made, tuning_runs.gradients(other), rtol=1e-4, atol=1e-6)


def test_exact_answers_are_counted() -> None:
    module = tuning_runs.bert("ForQuestionAnswering")
    with torch.no_grad():
        given = module(input_ids=torch.tensor([list(ROWS[0].tokens)]))
    best = int(given.start_logits.argmax()), int(given.end_logits.argmax())
    rows = [Example(ROWS[0].tokens, best, whole=True), Example(ROWS[0].tokens, (best[0], (best[1] + 1) % 5), True)]
    sums = Answers().loss(module, collate([[row] for row in rows])).sums
    assert int(sums["exact"]) == 1
    assert Answers().summary({"loss": 3.0, "weight": 2.0, "exact": 1.0}) == {"loss": 1.5, "exact_match": 0.5}
