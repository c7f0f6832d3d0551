"""What was learned before is forgotten less where old rows are among the new ones, or hold what they need."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from learning_tasks import WAYS, by_method, counting, surely
from torch import Tensor

from llmos.drivers.tuning.aids import backward_of
from llmos.drivers.tuning.data import replay
from llmos.drivers.tuning.data.batches import Batches, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.ewc import Anchored
from llmos.drivers.tuning.methods import adapt
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.trainer import train
from llmos.drivers.tuning.training import Training

NEW = by_method("lora", 2e-2)
"""The base counts as it is told to, in three ways; now it is to count by 5 where nothing is said."""
OLD = counting(tuple(WAYS))


def after(new: Sequence[Example], old: Sequence[Example], seed: int, share: float = 0.0, ewc: float = 0.0) -> Tensor:
    """How right the tuned model is: what it was to learn, and what it knew before, in groups of examples."""
    recipe = Recipe.of({
        "method": "lora", "packing": False, "rank": 8, "learning_rate": 2e-2, "max_steps": 150, "batch_size": 32,
        "seed": seed,
    })  # fmt: skip
    torch.manual_seed(seed)
    module = adapt(copy.deepcopy(NEW.base()).requires_grad_(False), NEW.kind, recipe, 150)
    backward, companion = backward_of(NEW.objective.loss), None
    if ewc:
        companion = Anchored(module, NEW.objective, [collate([[one]]) for one in old[:64]], ewc)
        backward = companion.around(backward, NEW.objective.weight)
    rows = replay.mixed(new, old, share, seed)
    train(Training(module, NEW.objective, recipe, Batches(rows, recipe), backward=backward, companion=companion))
    generator = torch.Generator().manual_seed(99)
    return torch.stack([NEW.figures(module, make(400, generator)) for make in (NEW.make, OLD)])


def forgets_less(seed: int, **asked: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    new, old = NEW.make(600, generator), OLD(200, generator)
    plain, aided = after(new, old, seed), after(new, old, seed, **asked)
    print(f"{asked} {seed}: new {plain[0].mean():.3f} {aided[0].mean():.3f}, "
          f"old {plain[1].mean():.3f} {aided[1].mean():.3f}")  # fmt: skip
    assert surely(aided[1] - plain[1])
    assert surely(aided[0] - 1 / 3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("asked", [{"share": 0.3}, {"ewc": 1e5}], ids=["replay", "ewc"])
def test_old_rows_keep_what_was_learned_before(asked: dict[str, float], seed: int) -> None:
    forgets_less(seed, **asked)
