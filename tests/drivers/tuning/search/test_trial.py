"""One trial: when it is evaluated, and that what it came to is kept whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import tuning_runs

from llmos.drivers.tuning import optimizing
from llmos.drivers.tuning.search.study import Told
from llmos.drivers.tuning.search.trial import Trial, every, kept, load, save

from .conftest import Prepare


def trial(prepare: Prepare, **values: Any) -> Trial:
    prepared = prepare()
    job = prepared.trial(0, {"learning_rate": 1e-2, **values}, lambda: None)
    made = Trial(job, Told(0, values, begun=0), prepared.judge(job), lambda: None, iter(range(10**6)).__next__)
    with made.run.randomness:
        made.run.begin()
    return made


def test_a_trial_is_evaluated_nine_times_unless_its_recipe_says_when() -> None:
    plain, asked = tuning_runs.recipe(), tuning_runs.recipe(options={"evaluate_every": 7})
    assert (every(plain, 90), every(plain, 4), every(asked, 90)) == (10, 1, 7)


def test_a_trial_counts_its_evaluations(prepare: Prepare) -> None:
    made = trial(prepare, max_steps=20)
    assert made.evaluations == 0 and made.report is None and made.seen.figures["loss"] > 0
    seen = []
    while made.report is None:
        made.advance()
        seen.append(made.evaluations)
    assert seen == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 9]
    assert made.told.seconds >= 20 and made.seen.values["learning_rate"] >= 0
    assert made.report.after == made.seen.figures


def test_what_a_trial_came_to_is_kept(prepare: Prepare, tmp_path: Path) -> None:
    made = trial(prepare, max_steps=2)
    made.advance()
    made.end()
    assert made.report is not None and made.report.steps == 1
    save(made, tmp_path / "best.safetensors")
    other = prepare("other").trial(0, {"seed": 5}, lambda: None)
    mine, theirs = (optimizing.trainable(each.module) for each in (made.prepared, other))
    assert not all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert load(other, tmp_path / "best.safetensors") == made.report
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert [path.name for path in tmp_path.glob("best*")] == ["best.safetensors"]


def test_a_checkpoint_that_is_damaged_or_missing_is_no_start(prepare: Prepare) -> None:
    made = trial(prepare)
    made.advance()
    made.run.save()
    folder = made.prepared.job.keep
    assert kept(folder, 1) and not kept(folder, 2)
    (folder / "step-000000001" / "state.safetensors").write_bytes(b"torn")
    assert not kept(folder, 1)
