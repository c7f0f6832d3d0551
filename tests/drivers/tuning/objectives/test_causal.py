"""The loss of the next token is the library's own; packed rows and single ones teach the same."""

from __future__ import annotations

import math
from typing import Any

import peft
import pytest
import torch
import tuning_runs

from llmos.drivers.tuning.data.batches import collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.causal import Causal


def answers(count: int) -> list[Example]:
    """Examples of which the first tokens are not learnt."""
    return [Example(each.tokens, [-100, -100, *each.labels[2:]]) for each in tuning_runs.sentences(count)]


def test_padded_rows_have_the_loss_and_gradients_of_the_library() -> None:
    batch = collate([[each] for each in answers(5)])
    tuning_runs.same_as_the_librarys(Causal(), tuning_runs.llama(), batch, labels=batch.labels)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_have_the_loss_and_gradients_of_single_ones(attention: str) -> None:
    examples = answers(6)
    packed, single = collate([examples[:4], examples[4:]]), collate([[each] for each in examples])
    one, other = tuning_runs.llama(), tuning_runs.llama()
    for module in (one, other):
        module.set_attn_implementation(attention)
    loss, made = tuning_runs.learnt(Causal(), one, packed)
    wanted, theirs = tuning_runs.learnt(Causal(), other, single)
    assert packed.packed and not single.packed and Causal().weight(packed) == Causal().weight(single)
    assert loss == pytest.approx(wanted, rel=1e-6)
    torch.testing.assert_close(made, theirs, rtol=1e-4, atol=1e-6)


def test_an_example_does_not_learn_from_its_neighbour() -> None:
    """The first token of an example has no label and what stands before it in the row changes nothing."""
    first, other, second = tuning_runs.sentences(3)
    losses = []
    for neighbour in (first, other):
        hidden = Example(neighbour.tokens, [-100] * len(neighbour))
        losses.append(tuning_runs.learnt(Causal(), tuning_runs.llama(), collate([[hidden, second]]))[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_tokens_that_are_learnt_before_the_text_are_left_out() -> None:
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    module: Any = peft.get_peft_model(tuning_runs.llama(), settings)
    batch = collate([[each] for each in answers(3)])
    objective = Causal()
    mean = objective.loss(module, batch).total / objective.weight(batch)
    theirs = module(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    assert mean.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_what_is_said_of_it() -> None:
    sums = {"loss": 4.0, "weight": 2.0, "right": 1.0, "items": 2.0}
    assert Causal().summary(sums) == {"loss": 2.0, "accuracy": 0.5, "perplexity": math.exp(2.0)}
    assert math.isfinite(Causal().summary(sums | {"loss": 1e6})["perplexity"])
