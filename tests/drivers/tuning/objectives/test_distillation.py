"""What a teacher says, by the formulas; the teacher stays as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import tuning_runs
from torch import Tensor

from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.objectives.classes import Rows, Tokens
from llmos.drivers.tuning.objectives.distillation import Distillation


def batch() -> Batch:
    return collate([[Example(each.tokens, [-100, *each.labels[1:]])] for each in tuning_runs.sentences(4)])


def teacher() -> Any:
    made = tuning_runs.llama(layers=3)
    with torch.no_grad():
        for value in made.parameters():
            value.mul_(1.2)
    return made.eval().requires_grad_(False)


def passed(module: Any, given: Batch) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Log-probabilities, labels and states where there is a label."""
    said = module(input_ids=given.input_ids, attention_mask=given.attention_mask, output_hidden_states=True)
    kept = given.labels[:, 1:] != -100
    states = [each[:, :-1][kept] for each in said.hidden_states]
    return said.logits[:, :-1][kept], given.labels[:, 1:][kept], states


def test_the_divergence_of_softened_scores_and_the_loss_of_labels() -> None:
    ours, above, given = tuning_runs.llama(), teacher(), batch()
    theirs = copy.deepcopy(ours)
    loss, made = tuning_runs.learnt(Distillation(Causal(), teacher=above, temperature=3.0, share=0.7), ours, given)
    scores, labels, _ = passed(theirs, given)
    goal, _, _ = passed(above, given)
    p, q = (goal / 3.0).softmax(-1), (scores / 3.0).softmax(-1)
    apart = (p * (p.log() - q.log())).sum(-1).mean()
    plain = -scores.softmax(-1).log().gather(1, labels[:, None]).mean()
    wanted = 0.3 * plain + 0.7 * 9.0 * apart
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-4)
    torch.testing.assert_close(made, tuning_runs.gradients(theirs), rtol=1e-3, atol=1e-5)
    assert not tuning_runs.gradients(above)


def test_one_that_says_the_same_teaches_nothing_more() -> None:
    ours, given = tuning_runs.llama(), batch()
    same = copy.deepcopy(ours).requires_grad_(False)
    _, made = tuning_runs.learnt(Distillation(Causal(), teacher=same, share=1.0), ours, given)
    assert max(float(value.abs().max()) for value in made.values()) < 1e-6


def test_the_distance_of_states_inside_comes_beside() -> None:
    ours, above, given = tuning_runs.llama(), teacher(), batch()
    theirs = copy.deepcopy(ours)
    objective = Distillation(Causal(), above, 1.0, 0.0, layers=((1, 2), (2, 3)), hidden=0.4)
    loss, made = tuning_runs.learnt(objective, ours, given)
    scores, labels, states = passed(theirs, given)
    _, _, goals = passed(above, given)
    apart = sum((states[one] - goals[two]).square().mean() for one, two in ((1, 2), (2, 3))) / 2
    plain = -scores.softmax(-1).log().gather(1, labels[:, None]).mean()
    wanted = plain + 0.4 * apart
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-4)
    torch.testing.assert_close(made, tuning_runs.gradients(theirs), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("tags", [False, True])
def test_classes_of_rows_and_of_words_are_taught_too(tags: bool) -> None:
    head, of = ("ForTokenClassification", Tokens()) if tags else ("ForSequenceClassification", Rows())
    ours, above = (tuning_runs.bert(head, num_labels=3) for _ in range(2))
    with torch.no_grad():
        for value in above.parameters():
            value.mul_(1.2)
    rows = [[3, 4, 5, 6], [7, 8]]
    given = collate([[Example(row, [0] * len(row) if tags else (0,), whole=not tags, aligned=True)] for row in rows])
    objective = Distillation(of, above.eval().requires_grad_(False), 2.0, 1.0, layers=((-1, 1),), hidden=0.5)
    found = objective.loss(ours, given).total / objective.weight(given)
    answers = [each(input_ids=given.input_ids, attention_mask=given.attention_mask, output_hidden_states=True)
               for each in (ours, above)]  # fmt: skip
    mask = given.attention_mask.bool()
    scores = [each.logits[mask] if tags else each.logits for each in answers]
    states = [answers[0].hidden_states[-1], answers[1].hidden_states[1]]
    states = [each[mask] if tags else (each * mask[..., None]).sum(1) / mask.sum(1, keepdim=True) for each in states]
    p, q = (scores[1] / 2).softmax(-1), (scores[0] / 2).softmax(-1)
    wanted = 4 * (p * (p.log() - q.log())).sum(-1).mean() + 0.5 * (states[0] - states[1]).square().mean()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert objective.beside == (above,) and objective.head == of.head
    assert objective.prepare(given, training=True) is given
