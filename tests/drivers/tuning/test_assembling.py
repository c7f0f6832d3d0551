"""What goes on beside a job: old rows are looked at, held on to, and known again after an interruption."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from slow_cases import slow_but
import torch
from tuning_runs import Make

from llmos.drivers.tuning.assembling import beside, rows_of
from llmos.drivers.tuning.job import Running
from llmos.drivers.tuning.optimizing import trainable
from llmos.drivers.tuning.preparing import Prepared
from llmos.drivers.tuning.slices import Stopped

OLD = [{"text": f"old words {n}"} for n in range(12)]
FILES = {"old.jsonl": OLD}


def recipe(method: str = "lora", **earlier: Any) -> dict[str, Any]:
    asked = {"files": ["old.jsonl"], "share": 0.5, "ewc": 5.0, "rows": 4, **earlier}
    return {
        "method": method, "eval_fraction": 0.4, "max_steps": 4, "checkpoint_every": 2, "learning_rate": 0.05,
        "files": FILES, "options": {"earlier": asked},
    }  # fmt: skip


def done(prepared: Prepared) -> Running:
    running = Running(prepared)
    running.work(lambda: None)
    return running


def test_forgetting_is_measured(make: Make) -> None:
    running = done(make(**recipe()))
    values = running.values
    assert values["eval_earlier_loss"] != values["eval_earlier_loss_before"]
    assert {"eval_loss", "eval_loss_before", "eval_earlier_perplexity"} <= values.keys()
    [told] = [each.facts["report"] for each in running.told() if "report" in each.facts]
    figure = told["figures"]["earlier_loss"]
    assert figure["before"][0] == pytest.approx(values["eval_earlier_loss_before"], rel=1e-5)
    assert running.manifest["data"]["earlier"]["files"] == 1


@pytest.mark.parametrize("method", slow_but(["adalora"], ["lora", "adalora"]))
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(make: Make, method: str) -> None:
    whole = make(**recipe(method))
    values = done(whole).values
    shutil.rmtree(whole.job.keep)
    interrupted = Running(make(**recipe(method)))

    def stop() -> None:
        if any(each.stage == "checkpoint" for each in interrupted.told()):
            raise Stopped

    with pytest.raises(Stopped):
        interrupted.work(stop)
    again = make(**recipe(method))
    told = done(again).values
    assert all(torch.equal(value, trainable(again.module)[name]) for name, value in trainable(whole.module).items())
    assert {k: v for k, v in told.items() if k != "seconds"} == {k: v for k, v in values.items() if k != "seconds"}


def test_what_holds_weights_moves_them_otherwise_and_is_planned(make: Make) -> None:
    free, held = make(**recipe(ewc=0.0)), make(**recipe(ewc=1e6))
    sizes = [each.plan.facts["bytes"] for each in (free, held)]
    assert sizes[1]["states"] - sizes[0]["states"] == 2 * sizes[0]["trainable"]
    starts = [{name: value.detach().clone() for name, value in trainable(p.module).items()} for p in (free, held)]
    for each in (free, held):
        shutil.rmtree(each.job.keep, ignore_errors=True)
        done(each)
    away = [
        sum(float((value - start[name]).detach().abs().sum()) for name, value in trainable(each.module).items())
        for each, start in zip((free, held), starts, strict=True)
    ]
    assert away[0] != away[1]


def test_old_rows_that_tell_what_matters_are_drawn_by_the_seed(make: Make) -> None:
    rows = rows_of(make(**recipe()), 3)
    assert len(rows) == 3 and all(len(batch.input_ids) == 1 for batch in rows)
    same, other = rows_of(make(**recipe()), 3), rows_of(make(**recipe(), seed=1), 3)
    assert [batch.input_ids.tolist() for batch in rows] == [batch.input_ids.tolist() for batch in same]
    assert [batch.input_ids.tolist() for batch in rows] != [batch.input_ids.tolist() for batch in other]


def test_nothing_goes_on_beside_most_jobs(make: Make) -> None:
    assert beside(make())[1] is None
