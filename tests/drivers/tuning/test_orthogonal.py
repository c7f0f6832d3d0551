"""AdaLoRA's term in the loss is PEFT's, once in each step."""

from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
import torch
import tuning_runs

from llmos.drivers.engine import kinds
from llmos.drivers.tuning.methods import adapt
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.orthogonal import apart, kept_apart
from llmos.drivers.tuning.passes import backward_of
from llmos.drivers.tuning.recipe import Recipe


def adapted(recipe: Recipe) -> Any:
    torch.manual_seed(0)
    module = adapt(tuning_runs.llama().requires_grad_(False), kinds.CAUSAL, recipe, 10)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if "lora_" in name and "ranknum" not in name:
                value.normal_(std=0.3)
    return module


@pytest.mark.parametrize("fields", [{}, {"target_modules": ["q_proj"]}])
def test_loss_and_gradients_are_those_of_peft(fields: dict[str, Any]) -> None:
    recipe = tuning_runs.recipe(method="adalora", rank=2, packing=False, **fields)
    objective = Causal()
    mine = adapted(recipe).train()
    theirs = copy.deepcopy(mine)
    batch = objective.prepare(tuning_runs.batches(recipe)[0], training=True)
    weight = objective.weight(batch)
    outcome = backward_of(recipe, objective)(mine, batch, weight)
    said = theirs(input_ids=batch.input_ids, position_ids=batch.position_ids, labels=batch.labels).loss
    bare = backward_of(Recipe.of({"method": "lora"}), objective)(copy.deepcopy(mine), batch, weight)
    assert said.item() != pytest.approx(float(bare.total) / weight, rel=0.1), "the term counts"
    assert float(outcome.total) / weight == pytest.approx(said.item(), rel=1e-5)
    said.backward()
    torch.testing.assert_close(tuning_runs.gradients(mine), tuning_runs.gradients(theirs), rtol=1e-4, atol=1e-6)


def test_a_step_has_it_once_and_held_out_rows_not_at_all() -> None:
    recipe = tuning_runs.recipe(method="adalora", rank=2, packing=False)
    objective = Causal()
    module = adapted(recipe).train()
    batches = [objective.prepare(tuning_runs.batches(recipe)[n], training=True) for n in range(3)]
    whole = sum(map(objective.weight, batches))
    plain, with_it = objective.loss, kept_apart(objective.loss, objective.weight)
    more = sum((with_it(module, each).total - plain(module, each).total).item() / whole for each in batches)
    assert more == pytest.approx(apart(module).item(), rel=1e-4) and more > 0.1
    module.eval()
    assert torch.equal(with_it(module, batches[0]).total, plain(module, batches[0]).total)


def test_matrices_that_are_orthogonal_cost_nothing() -> None:
    module = adapted(tuning_runs.recipe(method="adalora", rank=2))
    with torch.no_grad():
        for name, value in module.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                value.copy_(torch.nn.init.orthogonal_(torch.empty_like(value)))
    assert apart(module).item() < 1e-5
    assert isinstance(module, peft.PeftModel)
