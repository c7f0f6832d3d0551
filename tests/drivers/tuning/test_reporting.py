"""A job with held-out rows leaves a report beside its result, and tells it."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from tuning_runs import Make

from llmos.drivers.tuning.job import Running
from llmos.drivers.tuning.preparing import Prepared
from llmos.drivers.tuning.slices import Stopped


def reported(prepared: Prepared) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the job told, and what lies beside its result."""
    running = Running(prepared)
    running.work(lambda: None)
    told = [each.facts["report"] for each in running.told() if "report" in each.facts]
    [told_once] = told
    return told_once, json.loads((prepared.job.folder / "report.json").read_text())


def test_it_is_told_and_lies_beside_the_result(make: Make) -> None:
    told, kept = reported(make(eval_fraction=0.5, batch_size=1))
    assert told == kept and told["objective"] == "causal-lm" and told["judged_by"] == "perplexity"
    perplexity = told["figures"]["perplexity"]
    assert len(perplexity["before"]) == 3 and perplexity["drawn"] == "batches"
    assert told["lengths"]["held_out"]["examples"] >= 1


def test_without_held_out_rows_there_is_none(make: Make) -> None:
    prepared = make()
    running = Running(prepared)
    running.work(lambda: None)
    assert not [each for each in running.told() if "report" in each.facts]
    assert not (prepared.job.folder / "report.json").exists()


def test_a_run_that_was_interrupted_knows_what_was_before(make: Make) -> None:
    """The first evaluation is in the checkpoint: the weights that it was of are gone."""
    recipe = {"eval_fraction": 0.5, "batch_size": 1, "max_steps": 4, "checkpoint_every": 2, "learning_rate": 0.05}
    whole, _ = reported(make(**recipe))
    prepared = make(**recipe)
    shutil.rmtree(prepared.job.keep)
    interrupted = Running(prepared)

    def stop() -> None:
        if any(each.stage == "checkpoint" for each in interrupted.told()):
            raise Stopped

    with pytest.raises(Stopped):
        interrupted.work(stop)
    again, _ = reported(make(**recipe))
    assert again == whole and again["figures"]["loss"]["difference"][0] != 0
