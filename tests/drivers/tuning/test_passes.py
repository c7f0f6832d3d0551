"""What a recipe asks for around a loss is what its gradients are made with."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import tuning_runs
from torch import Tensor, nn

from llmos.drivers.tuning import aids
from llmos.drivers.tuning.data.batches import collate
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.passes import backward_of, check
from llmos.drivers.tuning.recipe import Recipe
from llmos.syscalls.errors import BadArgument

LOSS = Causal().loss
MEANT: dict[str, tuple[dict[str, Any], aids.Backward]] = {
    "none": ({}, aids.backward_of(LOSS)),
    "bf16": ({"mixed_precision": "bf16"}, aids.backward_of(aids.mixed(LOSS))),
    "r_drop": ({"r_drop": 0.5}, aids.backward_of(aids.r_drop(LOSS, 0.5))),
    "fgm": ({"adversarial": {"size": 0.5}}, aids.fgm(LOSS, 0.5)),
    "pgd": ({"adversarial": {"method": "pgd", "pace": 0.1, "times": 2}}, aids.pgd(LOSS, 1.0, 0.1, 2)),
    "all": (
        {"mixed_precision": "bf16", "r_drop": 2, "adversarial": {"method": "fgm"}},
        aids.fgm(aids.r_drop(aids.mixed(LOSS), 2.0), 1.0),
    ),
}  # fmt: skip


def gradients(backward: aids.Backward, module: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(5)
    backward(module, collate([[one] for one in tuning_runs.sentences(4)]), 7.0)
    return tuning_runs.gradients(module)


@pytest.mark.parametrize("name", MEANT)
def test_each_option_is_its_aid(name: str) -> None:
    options, meant = MEANT[name]
    module = tuning_runs.lora(tuning_runs.llama(), dropout=0.1)
    twin = copy.deepcopy(module)
    found = gradients(backward_of(Recipe.of({"method": "lora", "options": options}), Causal()), module)
    wanted = gradients(meant, twin)
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_r_drop_wants_something_that_drops_out() -> None:
    asked = Recipe.of({"method": "lora", "options": {"r_drop": 1}})
    check(asked, tuning_runs.lora(tuning_runs.llama(), dropout=0.1))
    check(Recipe.of({"method": "lora"}), tuning_runs.llama())
    with pytest.raises(BadArgument, match="a dropout above 0") as caught:
        check(asked, tuning_runs.lora(tuning_runs.llama()))
    assert caught.value.name == "r_drop"
