"""What a new adapter reads is kept orthogonal to what earlier ones read."""

from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
import torch
import tuning_runs
from llmos.drivers.tuning.data.batches import collate
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.subspaces import check, kept_apart, overlap
from llmos.drivers.tuning.trainer import train
from llmos.drivers.tuning.training import Training
from llmos.syscalls.errors import BadArgument
from torch import Tensor

BATCH = collate([[one] for one in tuning_runs.sentences(4)])


def matrices(adapted: Any) -> dict[str, Tensor]:
    """A by the path of the layer in the base, as the engine names it."""
    return {
        path: part.lora_A["default"].weight.detach().clone()
        for path, part in adapted.get_base_model().named_modules() if isinstance(part, peft.tuners.lora.LoraLayer)
    }  # fmt: skip


def earlier(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {path: torch.randn(3, value.shape[1], generator=generator)
            for path, value in matrices(tuning_runs.lora(tuning_runs.llama())).items()}  # fmt: skip


def test_the_term_is_that_of_the_paper() -> None:
    module, olds = tuning_runs.lora(tuning_runs.llama()), [earlier(0), earlier(1)]
    wanted = sum(float((old[path] @ a.T).square().sum()) for path, a in matrices(module).items() for old in olds)
    assert wanted > 0
    torch.testing.assert_close(float(overlap(module, olds).detach()), wanted)


def test_a_step_has_the_term_once_and_held_out_rows_are_judged_without() -> None:
    module, olds = tuning_runs.lora(tuning_runs.llama()), [earlier(0)]
    loss = kept_apart(Causal().loss, Causal().weight, olds, 0.25)
    plain = copy.deepcopy(module)
    halves = [collate([[each] for each in tuning_runs.sentences(4)[part]]) for part in (slice(3), slice(3, 4))]
    weight = sum(map(Causal().weight, halves))
    for half in halves:
        (loss(module, half).total / weight).backward()  # type: ignore[no-untyped-call]
    (Causal().loss(plain, BATCH).total / weight + 0.25 * overlap(plain, olds)).backward()
    torch.testing.assert_close(tuning_runs.gradients(module), tuning_runs.gradients(plain), rtol=1e-4, atol=1e-5)
    module.eval()
    torch.testing.assert_close(loss(module, BATCH).total, Causal().loss(module, BATCH).total)


def test_what_is_learned_leaves_the_directions_of_the_others() -> None:
    recipe = tuning_runs.recipe(max_steps=30, learning_rate=2e-2)
    olds, left = [earlier(0)], []
    for weight in (0.0, 1.0):
        module = tuning_runs.lora(tuning_runs.llama())
        loss = kept_apart(Causal().loss, Causal().weight, olds, weight)
        train(Training(module, Causal(), recipe, tuning_runs.batches(recipe), loss=loss))
        size = sum(float(a.square().sum()) for a in matrices(module).values())
        left.append(float(overlap(module, olds).detach()) / size)
    assert left[1] < 0.05 * left[0]


@pytest.mark.parametrize(
    "old", [{}, {"no.such.layer": torch.ones(1, 16)}, {"model.layers.0.self_attn.q_proj": torch.ones(1, 9)}]
)
def test_an_adapter_of_something_else_is_refused(old: dict[str, Tensor]) -> None:
    module = tuning_runs.lora(tuning_runs.llama())
    check(module, [earlier(0)], ["fits"])
    with pytest.raises(BadArgument, match="odd has no layer in common"):
        check(module, [earlier(0), old], ["fits", "odd"])
