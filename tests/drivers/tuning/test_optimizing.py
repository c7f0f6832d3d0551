"""AdamW by layers is AdamW; rates are the library's."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import transformers
import tuning_runs
from torch import nn

from llmos.drivers.tuning.optimizing import Optimizer, Schedule, layer_groups, trainable
from llmos.drivers.tuning.words import SCHEDULES
from llmos.syscalls.errors import BadArgument


class Small(nn.Module):
    """Two layers, a norm by class and one by name, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.scale = nn.LayerNorm(4)
        self.q_norm = nn.Linear(4, 1, bias=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return self.head(self.scale(x) * self.q_norm(x)).square().sum()  # type: ignore[no-any-return]


def test_layer_by_layer_it_is_adamw_with_the_librarys_rule_of_decay() -> None:
    torch.manual_seed(0)
    ours = Small()
    theirs = copy.deepcopy(ours)
    recipe = tuning_runs.recipe(weight_decay=0.3, options={"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6, "clip": 0.5})
    optimizer = Optimizer(ours, recipe)
    decays = set(transformers.trainer_pt_utils.get_parameter_names(
        theirs, [nn.LayerNorm], ["bias", "layernorm", "rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    ))  # fmt: skip
    assert decays == {"layers.0.weight", "layers.1.weight", "head.weight"}
    named = dict(theirs.named_parameters())
    groups = [
        {"params": [p for n, p in named.items() if n in decays], "weight_decay": 0.3},
        {"params": [p for n, p in named.items() if n not in decays], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.95), eps=1e-6, foreach=False)
    yields: list[str] = []
    for _ in range(3):
        x = torch.randn(5, 4)
        ours(x).backward()
        theirs(x).backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        assert optimizer.clip() == float(norm)
        optimizer.step(0.01, lambda: yields.append("turn"))
        optimizer.clear()
        reference.step()
        reference.zero_grad()
        assert all(torch.equal(value, named[name]) for name, value in ours.named_parameters())
    assert yields == ["turn"] * 3 * 3


def test_states_go_out_and_in_again() -> None:
    torch.manual_seed(0)
    one = Small()
    first = Optimizer(one, tuning_runs.recipe())
    assert first.states() == {}
    one(torch.randn(5, 4)).backward()
    first.step(0.1, lambda: None)
    first.clear()
    states = first.states()
    assert len(states) == 3 * len(list(one.parameters()))
    assert {value.dtype for value in states.values()} == {torch.float32}
    other = copy.deepcopy(one)
    second = Optimizer(other, tuning_runs.recipe())
    second.restore(states)
    for module, optimizer in ((one, first), (other, second)):
        module(torch.ones(5, 4)).backward()
        optimizer.step(0.1, lambda: None)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    second.restore({})
    assert second.states() == {}


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(BadArgument, match="nothing"):
        trainable(nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(BadArgument, match="bfloat16"):
        trainable(nn.Linear(2, 2).bfloat16())


def test_layers_are_told_by_their_numbers() -> None:
    names = ["model.layers.0.q.lora_A", "model.embed", "model.layers.0.v.lora_A", "model.layers.10.q", "h.0.experts.3"]
    assert layer_groups(names) == [
        ["model.layers.0.q.lora_A", "model.layers.0.v.lora_A"], ["model.layers.10.q"], ["h.0.experts.3"],
        ["model.embed"],
    ]  # fmt: skip
    assert layer_groups(["a"]) == [["a"]] and layer_groups([]) == []


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_the_librarys(name: str) -> None:
    steps = 23
    schedule = Schedule(tuning_runs.recipe(schedule=name, warmup_ratio=0.2), steps)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-2)
    theirs = transformers.get_scheduler(
        "constant_with_warmup" if name == "constant" else name, optimizer, math.ceil(0.2 * steps), steps
    )
    for step in range(steps):
        assert schedule.at(step) == optimizer.param_groups[0]["lr"]
        optimizer.step()
        theirs.step()
    assert schedule.at(0) == 0.0
