"""Contrastive losses by their formulas, text by text."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import tuning_runs
from torch import Tensor

from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.embedding import Embedding, Triplet, vectors


def texts(others: int) -> Batch:
    every = [tuning_runs.sentences(4, seed) for seed in range(others + 1)]
    rows = [
        Example(own.tokens, (0,), whole=True, others=tuple(Example(o.tokens, (0,), whole=True) for o in rest))
        for own, *rest in zip(*every, strict=True)
    ]
    return collate([[row] for row in rows])


def alone(module: Any, batch: Batch) -> list[Tensor]:
    """The vector of each row, which the module gets without padding."""
    found = []
    for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True):
        states = module(input_ids=ids[mask.bool()][None]).last_hidden_state[0]
        mean = states.mean(0)
        found.append(mean / mean.square().sum().sqrt())
    return found


def test_vectors_are_means_over_tokens_of_length_one() -> None:
    module, batch = tuning_runs.bert("Model"), texts(0)
    made = vectors(module, batch)
    torch.testing.assert_close(made, torch.stack(alone(module, batch)), rtol=1e-4, atol=1e-5)
    assert made.square().sum(-1).tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("others", [1, 2])
def test_each_text_is_told_from_those_of_all_rows(others: int) -> None:
    module, batch = tuning_runs.bert("Model"), texts(others)
    other = copy.deepcopy(module)
    loss, made = tuning_runs.learnt(Embedding(temperature=0.3), module, batch)
    asked = alone(other, batch)
    offered = [vector for each in batch.others for vector in alone(other, each)]
    losses = []
    for row, vector in enumerate(asked):
        weights = [torch.exp(vector @ text / 0.3) for text in offered]
        losses.append(-torch.log(weights[row] / sum(weights)))
    wanted = sum(losses) / 4
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-4) and len(offered) == 4 * others
    torch.testing.assert_close(made, tuning_runs.gradients(other), rtol=1e-3, atol=1e-5)


def test_texts_that_belong_together_are_nearer_by_a_margin() -> None:
    module, batch = tuning_runs.bert("Model"), texts(2)
    other = copy.deepcopy(module)
    loss, made = tuning_runs.learnt(Triplet(margin=0.2), module, batch)
    losses, right = [], 0
    for text, near, far in zip(alone(other, batch), *(alone(other, each) for each in batch.others), strict=True):
        distances = [(text - each).square().sum().sqrt() for each in (near, far)]
        losses.append(torch.clamp(distances[0] - distances[1] + 0.2, min=0.0))
        right += int(distances[0] < distances[1])
    wanted = sum(losses) / 4
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-3) and loss > 0
    torch.testing.assert_close(made, tuning_runs.gradients(other), rtol=1e-3, atol=1e-5)
    assert int(Triplet().loss(module, batch).sums["right"]) == right
    assert Triplet().summary({"loss": 2.0, "weight": 4.0, "right": 3.0}) == {"loss": 0.5, "accuracy": 0.75}


def test_a_row_is_its_own_class() -> None:
    batch = texts(2)
    assert Embedding().targets(batch).tolist() == [0, 1, 2, 3] and Embedding().weight(batch) == 4.0
    identical = collate([[Example([3, 4], (0,), whole=True, others=(Example([3, 4], (0,), whole=True),))]] * 2)
    loss, _ = tuning_runs.learnt(Embedding(), tuning_runs.bert("Model"), identical)
    assert loss == pytest.approx(math.log(2), rel=1e-5)
