"""DPO by its formula, with plain passes of the library and of PEFT."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import tuning_runs
from torch import Tensor

from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.preference import Preference, likelihood


def pairs(count: int = 3) -> Batch:
    """The same two first tokens, which are not learnt, and two answers."""
    good, bad = tuning_runs.sentences(count, 1), tuning_runs.sentences(count, 2)
    rows = []
    for one, other in zip(good, bad, strict=True):
        both = [Example([5, 6, *each.tokens], [-100, -100, *each.tokens]) for each in (one, other)]
        rows.append(Example(both[0].tokens, both[0].labels, others=(both[1],)))
    return collate([[row] for row in rows])


def module(dropout: float = 0.0) -> Any:
    made = tuning_runs.lora(tuning_runs.llama(dropout), dropout)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if "lora_B" in name:
                value.normal_(0.0, 0.3)
    return made


def said(module: Any, batch: Batch) -> list[Tensor]:
    """Log-probabilities of answers, one row at a time, token by token."""
    found = []
    for ids, labels, mask in zip(batch.input_ids, batch.labels, batch.attention_mask, strict=True):
        count = int(mask.sum())
        scores = module(input_ids=ids[None, :count]).logits[0].log_softmax(-1)
        found.append(sum(scores[n - 1, labels[n]] for n in range(count) if labels[n] != -100))
    return found  # type: ignore[return-value]


def test_likelihoods_are_those_of_the_tokens_with_labels() -> None:
    given, made = pairs(), module()
    for room in (0, 40):
        torch.testing.assert_close(likelihood(made, given, room), torch.stack(said(made, given)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("room", [0, 70])
def test_the_loss_is_that_of_the_formula(room: int) -> None:
    ours, given = module(), pairs()
    theirs = copy.deepcopy(ours)
    loss, gradients = tuning_runs.learnt(Preference(beta=0.3, room=room), ours, given)
    good, bad = said(theirs, given), said(theirs, given.others[0])
    with torch.no_grad(), theirs.disable_adapter():
        good_before, bad_before = said(theirs, given), said(theirs, given.others[0])
    ratios = [(g - gb) - (b - bb) for g, gb, b, bb in zip(good, good_before, bad, bad_before, strict=True)]
    wanted = sum(-torch.log(1 / (1 + torch.exp(-0.3 * ratio))) for ratio in ratios) / len(ratios)
    wanted.backward()  # type: ignore[union-attr]
    assert loss == pytest.approx(wanted.item(), rel=1e-4)  # type: ignore[union-attr]
    torch.testing.assert_close(gradients, tuning_runs.gradients(theirs), rtol=1e-3, atol=1e-5)
    assert int(Preference().loss(ours, given).sums["right"]) == sum(ratio.item() > 0 for ratio in ratios)


def test_the_reference_has_no_dropout_and_leaves_the_module_training() -> None:
    made, given = module(dropout=0.5), pairs()
    made.train()
    without = Preference()
    told: list[float] = []

    class Listening(Preference):
        def _margin(self, module: Any, batch: Batch) -> Tensor:
            found = super()._margin(module, batch)
            if not torch.is_grad_enabled():
                told.extend(found.tolist())
            return found

    for _ in range(2):
        Listening().loss(made, given)
    assert told[:3] == told[3:] and made.training
    made.eval()
    without.loss(made, given)
    assert not made.training
    assert without.weight(given) == 3.0
    assert without.summary({"loss": 6.0, "weight": 3.0, "right": 3.0}) == {"loss": 2.0, "accuracy": 1.0}


def test_a_base_of_its_own_is_as_good_a_reference() -> None:
    ours, given = module(), pairs()
    theirs = copy.deepcopy(ours)
    base = tuning_runs.llama().requires_grad_(False)
    loss, gradients = tuning_runs.learnt(Preference(base=base), ours, given)
    wanted, others = tuning_runs.learnt(Preference(), theirs, given)
    assert loss == pytest.approx(wanted) and loss != pytest.approx(0.6931, abs=1e-4)
    torch.testing.assert_close(gradients, others)
