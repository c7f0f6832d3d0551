"""With few labels, rows without any make up for them where what changes in a row does not change what it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from learning_tasks import COUNT, FIRST, encoder, numbers, surely, told
from torch import Tensor

from llmos.drivers.engine import kinds
from llmos.drivers.tuning.data.batches import Batches
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.data.paired import Paired
from llmos.drivers.tuning.data.unlabelled import Pool
from llmos.drivers.tuning.methods import adapt
from llmos.drivers.tuning.objectives.classes import Rows
from llmos.drivers.tuning.objectives.consistent import Consistent
from llmos.drivers.tuning.objectives.protocol import inputs
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.trainer import train
from llmos.drivers.tuning.training import Training

STEPS = 400
TASK = told(lambda row: [row[0] % 2])
"""Whether the first of six numbers is odd: the others mean nothing."""


def pool(generator: torch.Generator, count: int = 600) -> Pool:
    """Rows without labels; in copies the first number stays."""
    given = TASK(count, generator)
    changed = [
        [Example([one.tokens[0], *(FIRST + n for n in rest)], one.labels, whole=True)]
        for one, rest in zip(given, numbers((count, 5), generator), strict=True)
    ]
    return Pool(given, changed, [""] * count, "")


def right(examples: Sequence[Example], held_out: Sequence[Example], seed: int, beside: Pool | None, soft: bool = False,
          ) -> Tensor:  # fmt: skip
    """Of each held-out row whether it is right after tuning on the others."""
    asked = {"files": ["raw"], "rows": 32, "confidence": 0.8 if soft else 0.9, "soft": soft}
    recipe = Recipe.of({
        "method": "lora", "objective": "classification", "rank": 8, "learning_rate": 1e-2, "max_steps": STEPS,
        "batch_size": 16, "seed": seed, "options": {"unlabelled": asked},
    })  # fmt: skip
    torch.manual_seed(seed)
    base = encoder("ForSequenceClassification")().requires_grad_(False)
    module = adapt(base, kinds.SEQUENCE, recipe, STEPS)
    batches = Batches(examples, recipe, room=0)
    assert recipe.unlabelled is not None
    if beside is None:
        train(Training(module, Rows(), recipe, batches))
    else:
        objective = Consistent(Rows(), recipe.unlabelled)
        train(Training(module, objective, recipe, Paired(batches, beside, recipe), judge=Rows()))
    [batch] = Batches(held_out, dataclasses.replace(recipe, batch_size=len(held_out)), room=0, shuffled=False)
    with torch.no_grad():
        return (module.eval()(**inputs(batch)).logits.argmax(1) == batch.labels).double()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("soft", [False, True], ids=["pseudo-labels", "consistency"])
def test_rows_without_labels_make_up_for_few_with(soft: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    examples, held_out = TASK(6 * COUNT, generator), TASK(1000, generator)
    few, more = (right(examples, held_out, seed, beside, soft) for beside in (None, pool(generator)))
    print(f"{seed}: {few.mean():.3f} {more.mean():.3f}")
    assert surely(more - few)
