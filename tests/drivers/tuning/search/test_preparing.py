"""What a search checks and plans before it begins."""

from __future__ import annotations

from typing import Any

import pytest
import tuning_runs
from slow_cases import slow_but

from llmos.drivers.tuning.data import dataset
from llmos.drivers.tuning.search import preparing
from llmos.drivers.tuning.search.running import Searching
from llmos.syscalls.errors import BadArgument, NotSupported

from .conftest import Prepare


def test_the_plan_is_of_all_trials(prepare: Prepare) -> None:
    one, four = prepare(search={"parallel": 1}), prepare(search={"parallel": 4})
    assert one.steps == 9 and one.plan.steps == 36 and one.evaluations == 8
    assert one.plan.facts["search"] == {
        "over": ["learning_rate"], "trials": 4, "parallel": 1, "metric": "eval_loss", "sampler": "tpe",
        "pruner": "hyperband",
    }  # fmt: skip
    sizes, more = one.plan.facts["bytes"], four.plan.facts["bytes"]
    assert more["trials"] == 4 * sizes["trials"] and more["best"] == sizes["best"]
    assert sizes["total"] == one.plan.rows[0].predicted < four.plan.rows[0].predicted


def test_the_plan_is_for_the_largest_trial(prepare: Prepare) -> None:
    space = {"learning_rate": [1e-3, 1e-2], "rank": {"low": 2, "high": 16}, "batch_size": [4, 2]}
    found, largest = prepare(search={"space": space}), prepare(rank=16, batch_size=4)
    assert found.plan.rows[0].predicted == largest.plan.rows[0].predicted


def test_data_are_read_once_for_all_that_want_the_same(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    plain = dataset.encode

    def noted(source: Any, recipe: Any, base: Any) -> Any:
        read.append(recipe.max_length)
        return plain(source, recipe, base)

    monkeypatch.setattr("llmos.drivers.tuning.data.reading.encode", noted)
    made = prepare(search={"space": {"rank": [2, 4], "learning_rate": [1e-3, 1e-2], "max_length": [24, 32]}})
    for number, values in enumerate(({"rank": 2, "max_length": 24}, {"rank": 4, "max_length": 32})):
        made.trial(number, values, lambda: None)
    assert sorted(read) == [24, 32]


def test_all_trials_are_judged_alike(prepare: Prepare) -> None:
    """A trial that learns smoothed labels is not measured by them."""
    made = prepare(search={"space": {"options.label_smoothing": [0.1, 0.2]}}, options={"label_smoothing": 0.05})
    trial: Any = made.trial(0, {"options.label_smoothing": 0.2}, lambda: None)
    judge: Any = made.judge(trial)
    assert (trial.objective.smoothing, judge.smoothing) == (0.2, 0.05) and type(judge) is type(trial.objective)


def test_what_cannot_be_is_said_before_any_work(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadArgument, match="finds no layers for nothing"):
        prepare(search={"space": {"target_modules": [["q_proj"], ["nothing"]]}})
    monkeypatch.setattr(preparing, "check_installed", _missing)
    with pytest.raises(NotSupported, match="optuna"):
        prepare()


def _missing() -> None:
    raise NotSupported("optuna is not installed", why="optuna")


@pytest.mark.parametrize("parallel", slow_but([1], [1, 4]))
def test_the_bytes_of_a_search_are_those_that_were_planned(prepare: Prepare, parallel: int) -> None:
    recipe = {"rank": 64, "batch_size": 4, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]}
    made = prepare(search={"parallel": parallel, "trials": 2 * parallel, "pruner": "none"}, **recipe)
    taken = tuning_runs.allocated(lambda: Searching(made).work(lambda: None))
    print(f"planned {made.plan.rows[0].predicted}, taken {taken}", made.plan.facts["bytes"])
    assert made.plan.rows[0].predicted == pytest.approx(taken, rel=0.1)
