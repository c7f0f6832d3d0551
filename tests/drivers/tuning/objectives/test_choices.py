"""Of several answers the right one: the likeliest after the prompt."""

from __future__ import annotations

import copy
import dataclasses

import torch
import tuning_runs
from torch.nn import functional

from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.choices import Choices


def batch() -> Batch:
    """Three rows: a prompt of two tokens and three answers, of which the first is right."""
    rows = []
    for number in range(3):
        answers = [[5 + number], [8, 9 + number, 3], [12]]
        each = [Example([3, 4 + number, *answer], [-100, -100, *answer]) for answer in answers]
        rows.append(dataclasses.replace(each[0], others=tuple(each[1:])))
    return collate([[row] for row in rows])


def test_the_loss_is_of_the_likelihood_of_whole_answers() -> None:
    module, given = tuning_runs.llama(), batch()
    other = copy.deepcopy(module)
    loss, made = tuning_runs.learnt(Choices(), module, given)
    scores = []
    for text in (given, *given.others):
        logits = other(input_ids=text.input_ids, attention_mask=text.attention_mask).logits.log_softmax(-1)
        said = logits[:, :-1].gather(2, text.labels[:, 1:].clamp_min(0)[..., None])[..., 0]
        scores.append((said * (text.labels[:, 1:] >= 0)).sum(1))
    wanted = functional.cross_entropy(torch.stack(scores, 1), torch.zeros(3, dtype=torch.long))
    wanted.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(torch.tensor(loss), wanted.detach())
    torch.testing.assert_close(made, tuning_runs.gradients(other), rtol=1e-4, atol=1e-6)


def test_a_few_scores_at_a_time_are_as_good() -> None:
    one = tuning_runs.lora(tuning_runs.llama())
    other = copy.deepcopy(one)
    loss, made = tuning_runs.learnt(Choices(room=1), one, batch())
    wanted, theirs = tuning_runs.learnt(Choices(), other, batch())
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(made, theirs, rtol=1e-4, atol=1e-7)


def test_the_right_one_is_counted() -> None:
    outcome = Choices().loss(tuning_runs.llama(), batch())
    assert outcome.scores is not None and outcome.scores.shape == (3, 3)
    assert int(outcome.sums["right"]) == int((outcome.scores.argmax(1) == 0).sum())
