"""Whole searches: the best trial is found and kept, the worse are cancelled, and budgets and interruptions are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from slow_cases import slow_but

from llmos.drivers.contract import TuneProgressEvent
from llmos.drivers.tuning.search.preparing import PreparedSearch
from llmos.drivers.tuning.search.running import Searching
from llmos.drivers.tuning.search.trial import Trial
from llmos.drivers.tuning.slices import Stopped
from llmos.drivers.tuning.trainer import train
from llmos.drivers.tuning.training import Training
from llmos.syscalls.errors import BadState

from .conftest import Prepare

SEARCH: dict[str, Any] = {"space": {"learning_rate": [1e-9, 1e-2], "rank": [2, 4]}, "trials": 8, "parallel": 3}


def done(prepared: PreparedSearch, stacked: bool = True) -> Searching:
    made = Searching(prepared, stacked)
    made.work(lambda: None)
    return made


def weights(prepared: PreparedSearch) -> dict[str, torch.Tensor]:
    return load_file(prepared.job.folder / "adapter_model.safetensors")


def same(one: PreparedSearch, other: PreparedSearch) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def timeless(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "seconds": 0} for row in trials]


def test_the_better_region_is_found_and_the_worse_trials_are_cancelled(prepare: Prepare) -> None:
    prepared = prepare(search=SEARCH)
    found = done(prepared)
    trials = found.manifest["trials"]
    assert len(trials) == 8 and {row["state"] for row in trials} == {"complete", "pruned"}
    best = trials[found.manifest["best"]]
    assert best["parameters"]["learning_rate"] == 1e-2 and best["state"] == "complete" and best["steps"] == 9
    assert best["value"] == min(row["value"] for row in trials if row["state"] == "complete")
    idle = [row for row in trials if row["parameters"]["learning_rate"] == 1e-9]
    assert idle and any(row["state"] == "pruned" and row["steps"] < 9 for row in idle)
    assert found.values["trials_done"] == 8 and found.values["best"] == best["value"] == found.values["eval_loss"]
    assert found.values["eval_loss"] < found.values["eval_loss_before"]
    assert found.manifest["recipe"]["learning_rate"] == 1e-2 and "search" not in found.manifest["recipe"]
    assert sorted(path.name for path in prepared.job.keep.iterdir()) == [
        f"best-{best['number']:04}.safetensors", "trials.jsonl",
    ]  # fmt: skip


def test_the_best_trial_has_a_report_also_when_it_was_another_process_that_made_it(prepare: Prepare) -> None:
    search = {"space": {"learning_rate": [1e-2, 1e-3]}, "trials": 2, "parallel": 1}
    prepared = prepare(search=search, eval_fraction=0.5)
    found = done(prepared)
    [told] = [each.facts["report"] for each in found.told() if "report" in each.facts]
    assert told == json.loads((prepared.job.folder / "report.json").read_text())
    loss = told["figures"]["loss"]
    assert loss["after"][0] == pytest.approx(found.values["eval_loss"], rel=1e-5)
    assert loss["before"][0] == pytest.approx(found.values["eval_loss_before"], rel=1e-5)
    again = done(prepare(search=search, eval_fraction=0.5))
    [same_] = [each.facts["report"] for each in again.told() if "report" in each.facts]
    assert same_ == told and not any(each.stage == "train" for each in again.told())


@pytest.mark.slow
def test_the_result_is_what_the_best_recipe_gives_alone(prepare: Prepare) -> None:
    prepared = prepare(search={**SEARCH, "pruner": "none"})
    found = done(prepared, stacked=False)
    row = found.manifest["trials"][found.manifest["best"]]
    alone = prepared.trial(99, row["parameters"], lambda: None)
    report = train(Training(alone.module, alone.objective, alone.recipe, alone.batches, alone.held_out))
    assert report.after["loss"] == row["value"]
    mine = weights(prepared)
    theirs = {name: value for name, value in alone.module.named_parameters() if value.requires_grad}
    assert len(mine) == len(theirs)
    for name, value in theirs.items():
        assert torch.equal(mine[name.replace(".default", "")], value)


def test_how_far_it_is_is_told(prepare: Prepare) -> None:
    found = Searching(prepare(search={**SEARCH, "trials": 4}))
    assert found.values == {} and found.told() == []
    found.work(lambda: None)
    events = [each for each in found.told() if isinstance(each, TuneProgressEvent)]
    assert [each.step for each in events] == sorted(each.step for each in events)
    assert events[-1].step == events[-1].steps == 36 and [each.stage for each in events[-2:]] == ["export", "report"]
    assert {"trial", "train", "evaluate"} <= {each.stage for each in events}
    begun = next(each for each in events if each.stage == "trial")
    assert begun.facts["trials"][0]["state"] == "running" and begun.values["trials"] == 4
    assert events[-2].facts["best"] == found.manifest["best"]
    assert found.told() == []


class Cut:
    """Ends the work at its `at`th yield point, as a host that is killed there."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self) -> None:
        self.at -= 1
        if not self.at:
            raise Stopped


def interrupted(prepared: PreparedSearch, at: int, stacked: bool = True) -> bool:
    try:
        Searching(prepared, stacked).work(Cut(at))
    except Stopped:
        return True
    return False


@pytest.mark.parametrize(("stacked", "every"), slow_but([(True, 2)], [(True, 0), (True, 2), (False, 2)]))
def test_a_search_that_was_killed_ends_as_one_that_was_not(prepare: Prepare, stacked: bool, every: int) -> None:
    """Killed again and again, at other places each time; with checkpoints of trials and without."""
    whole = prepare("whole", search=SEARCH, dropout=0.1, checkpoint_every=every)
    found = done(whole, stacked)
    cut = prepare("cut", search=SEARCH, dropout=0.1, checkpoint_every=every)
    for at in (300, 900, 500, 700):
        assert interrupted(cut, at, stacked)
    again = done(cut, stacked)
    assert timeless(again.manifest["trials"]) == timeless(found.manifest["trials"])
    assert again.manifest["best"] == found.manifest["best"] and again.manifest["after"] == found.manifest["after"]
    assert same(whole, cut) and not list(cut.job.keep.glob("trial-*"))


def test_trials_go_on_from_where_they_were_kept(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(search={**SEARCH, "trials": 2, "parallel": 2, "pruner": "none"}, checkpoint_every=4)
    begun: list[int] = []

    def noted(trial: Trial) -> None:
        begun.append(trial.run.step)
        ADVANCE(trial)

    monkeypatch.setattr(Trial, "advance", noted)
    assert interrupted(prepared, 2000, stacked=False)
    kept = max(step for step in (4, 8) if step < max(begun))
    assert sorted({path.name for path in prepared.job.keep.glob("trial-*/step-*")})[-1] == f"step-{kept:09}"
    begun.clear()
    done(prepared, stacked=False)
    assert min(begun) == kept


@pytest.mark.slow
def test_a_damaged_checkpoint_is_no_start(prepare: Prepare) -> None:
    """The search begins anew, and comes to the same."""
    whole, prepared = (prepare(name, search=SEARCH, checkpoint_every=2) for name in ("whole", "torn"))
    assert interrupted(prepared, 600)
    files = list(prepared.job.keep.glob("trial-*/step-*/state.safetensors"))
    assert files
    files[0].write_bytes(b"torn")
    assert timeless(done(prepared).manifest["trials"]) == timeless(done(whole).manifest["trials"])
    assert same(whole, prepared)


def test_a_search_that_was_over_is_written_again(prepare: Prepare, tmp_path: Path) -> None:
    prepared = prepare(search={**SEARCH, "trials": 3})
    done(prepared)
    first = weights(prepared)
    for file in prepared.job.folder.iterdir():
        file.unlink()
    done(prepared)
    second = weights(prepared)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_checkpoint_is_written_when_one_is_asked_for(prepare: Prepare) -> None:
    prepared = prepare(search={**SEARCH, "trials": 2, "parallel": 2})
    made, seen = Searching(prepared), set[str]()

    def give_way() -> None:
        seen.update(path.parent.parent.name for path in prepared.job.keep.glob("trial-*/step-*/state.json"))

    made.checkpoint()
    made.work(give_way)
    assert seen == {"trial-0000", "trial-0001"}
    stages = [each.stage for each in made.told() if isinstance(each, TuneProgressEvent)]
    assert stages.count("checkpoint") == 2  # and one when trials have come to their end


class Clock:
    """A second goes by each time somebody else has a turn, and a hundredth each time it is looked at."""

    def __init__(self) -> None:
        self.now, self.others = 0.0, 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now

    def give_way(self) -> None:
        self.now += 1.0
        self.others += 1.0


@pytest.mark.parametrize("budget", slow_but([{"seconds": 2500}], [{"seconds": 2500}, {"device_seconds": 30}]))
def test_time_is_a_budget_too(prepare: Prepare, budget: dict[str, float]) -> None:
    """No trial begins when it is up, and those that are under way end where they are."""
    clock = Clock()
    made = Searching(prepare(search={"trials": None, "parallel": 2, "space": SEARCH["space"], **budget}), clock=clock)
    made.work(clock.give_way)
    assert "device_seconds" in budget or 2500 <= made.values["seconds"] < 2800  # one round more, at most
    trials = made.manifest["trials"]
    assert 2 < len(trials) < 30 and "cut" in {row["state"] for row in trials[-2:]}
    assert {row["state"] for row in trials[:2]} <= {"complete", "pruned"}
    told = [each for each in made.told() if isinstance(each, TuneProgressEvent)]
    assert all(each.step <= each.steps for each in told) and told[-1].steps < 2 * told[-1].step


def failing(trial: Trial) -> None:
    """With this rate a trial comes apart in its third step."""
    if trial.run.step == 2 and trial.told.parameters["learning_rate"] >= 0.5:
        raise BadState("the norm of the gradients has been nan", state="diverged")
    ADVANCE(trial)


ADVANCE = Trial.advance


def test_a_trial_that_fails_is_one_of_the_trials(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "advance", failing)
    prepared = prepare(search={"space": {"learning_rate": [0.5, 1e-2]}, "trials": 4, "pruner": "none"})
    found = done(prepared, stacked=False)
    states = {row["parameters"]["learning_rate"]: (row["state"], row["steps"]) for row in found.manifest["trials"]}
    assert states == {0.5: ("failed", 2), 1e-2: ("complete", 9)}
    errors = {row["error"] for row in found.manifest["trials"] if row["state"] == "failed"}
    assert errors == {"the norm of the gradients has been nan"}


def test_a_search_without_any_result_fails(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "advance", failing)
    with pytest.raises(BadState, match="none of 2 trials came to an end; the last one failed: the norm"):
        done(prepare(search={"space": {"learning_rate": [0.5, 0.6]}, "trials": 2}), stacked=False)
