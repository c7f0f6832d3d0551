"""What a run is given: what it needs, and what may be left out."""

from __future__ import annotations

import tuning_runs
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.trainer import train
from llmos.drivers.tuning.training import Progress, Training


def test_a_module_an_objective_a_recipe_and_batches_are_enough() -> None:
    recipe = tuning_runs.recipe(max_steps=2)
    job = Training(tuning_runs.lora(tuning_runs.llama()), Causal(), recipe, tuning_runs.batches(recipe))
    report = train(job)
    assert (report.steps, report.reason, report.before, report.after) == (2, "done", {}, {})


def test_who_asks_to_be_told_is_told_each_step() -> None:
    recipe = tuning_runs.recipe(max_steps=3, checkpoint_every=0)
    told: list[Progress] = []
    module = tuning_runs.lora(tuning_runs.llama())
    train(Training(module, Causal(), recipe, tuning_runs.batches(recipe), progress=told.append))
    assert [(each.step, each.steps) for each in told if each.stage == "train"] == [(1, 3), (2, 3), (3, 3)]
