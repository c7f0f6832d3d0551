"""Held-out rows of their own have figures of their own."""

from __future__ import annotations

import torch
import tuning_runs
from llmos.drivers.tuning.judging import Evaluated
from llmos.drivers.tuning.looks import HeldOut
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.report import figures
from llmos.drivers.tuning.trainer import train
from llmos.drivers.tuning.training import Training

CPU = torch.device("cpu")


def test_it_comes_to_what_an_evaluation_of_the_same_rows_comes_to() -> None:
    recipe = tuning_runs.recipe(max_steps=4, eval_fraction=0.1)
    held_out = tuple(tuning_runs.batches(recipe, tuning_runs.sentences(6, seed=3)))
    look = HeldOut("old", held_out, Causal(), "causal-lm", CPU)
    module, judged = tuning_runs.lora(tuning_runs.llama()), list[tuple[Evaluated, Evaluated]]()
    report = train(Training(
        module, Causal(), recipe, tuning_runs.batches(recipe), held_out, looks={"old": look},
        evaluated=lambda *both: judged.append(both),
    ))  # fmt: skip
    for side in (report.before, report.after):
        assert {name for name in side if name.startswith("old_")} == {"old_loss", "old_accuracy", "old_perplexity"}
        assert all(side[f"old_{name}"] == side[name] for name in ("loss", "accuracy", "perplexity"))
    assert report.before["old_loss"] != report.after["old_loss"]
    told = look.compared(*report.looked["old"], lambda: None)["figures"]
    wanted = figures("causal-lm", Causal().summary, *judged[0])
    assert told == {f"old_{name}": value for name, value in wanted.items()}


def test_others_have_their_turn_after_each_batch() -> None:
    recipe, turns = tuning_runs.recipe(), list[int]()
    batches = tuple(tuning_runs.batches(recipe, tuning_runs.sentences(6)))
    look = HeldOut("old", batches, Causal(), "causal-lm", CPU)
    with torch.no_grad():
        look.look(tuning_runs.llama(), lambda: turns.append(1))
    assert len(turns) == len(batches) > 1
