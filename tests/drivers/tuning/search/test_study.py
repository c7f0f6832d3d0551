"""A study asks for the same trials whoever lost it in between, and says which of them are to end."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from llmos.drivers.tuning.search.space import Search
from llmos.drivers.tuning.search.study import (
    COMPLETE, CUT, FAILED, PRUNED, Journal, Study, Told, check_installed, table,
)  # fmt: skip
from llmos.syscalls.errors import BadState, NotSupported

SPENT = {"device": 1.0, "wall": 2.0}


def search(**fields: object) -> Search:
    space = {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}, "rank": {"low": 2, "high": 16, "step": 2},
             "schedule": ["linear", "cosine"]}  # fmt: skip
    wanted = {"space": space, "trials": 30, "parallel": 2, **fields}
    return Search.of({"method": "lora", "eval_fraction": 0.1, "seed": 3, "search": wanted})


def worth(told: Told, evaluation: int) -> float:
    """Better with a large rate, and in time."""
    return 5 - 100 * float(told.parameters["learning_rate"]) - 0.1 * evaluation


def led(study: Study, trials: int, evaluations: int = 9) -> None:
    """Two trials at a time, from wherever it stands, until there are so many; kept after every fourth round."""
    while True:
        while len(study.running) < 2 and len(study.trials) < trials:
            study.ask(study.round, SPENT)
        if not study.running:
            return
        study.round += 1
        for told in study.running:
            count = len(told.values) + 1
            told.steps, told.seconds = count, 0.5 * count
            ends = study.report(told, worth(told, count), study.round, SPENT)
            if ends or count == evaluations:
                study.tell(told, PRUNED if ends else COMPLETE, study.round, SPENT)
        if study.round % 4 == 0:
            study.keep({told.number: told.steps for told in study.running}, study.round, SPENT)


def test_trials_come_from_the_space_and_the_seed() -> None:
    made = Study(search(), 9)
    led(made, 12)
    again = Study(search(), 9)
    led(again, 12)
    assert table(made.trials) == table(again.trials)
    for told in made.trials:
        assert 1e-5 <= told.parameters["learning_rate"] <= 1e-2 and told.parameters["rank"] in range(2, 17, 2)
        assert told.parameters["schedule"] in ("linear", "cosine")
    other = Study(Search.of({"method": "lora", "eval_fraction": 0.1, "seed": 4, "search": {
        "space": {"learning_rate": {"low": 1e-5, "high": 1e-2}}, "trials": 3}}), 9)  # fmt: skip
    assert other.ask(0, SPENT).parameters["learning_rate"] != made.trials[0].parameters["learning_rate"]


def test_the_worse_end_early_and_the_best_is_known() -> None:
    study = Study(search(), 9)
    led(study, 20)
    ended = [told for told in study.trials if told.state == PRUNED]
    whole = [told for told in study.trials if told.state == COMPLETE]
    assert ended and whole and study.ended == 20 and not study.running
    assert min(len(told.values) for told in ended) < 9
    assert study.best is not None and study.best.value == min(told.value for told in whole if told.value is not None)
    found = study.importance()
    assert set(found) <= {"learning_rate", "rank", "schedule"} and sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize("lines", [1, 2, 3, 11, 40, 70])
def test_a_study_that_was_lost_goes_on_as_if_it_had_not_been(tmp_path: Path, lines: int) -> None:
    whole = Study(search(), 9, Journal(tmp_path / "whole"), "mine")
    led(whole, 14)
    written = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut").write_bytes(b"".join(written[:lines]) + written[lines][:20])  # killed while it wrote the next
    again = Study(search(), 9, Journal(tmp_path / "cut"), "mine")
    marks = [n for n, line in enumerate(written[:lines]) if json.loads(line)["what"] == "checkpoint"]
    assert len((tmp_path / "cut").read_bytes().splitlines()) == (marks[-1] if marks else 0) + 1
    assert again.round == 4 * len(marks) and set(again.kept) == {told.number for told in again.running if told.values}
    led(again, 14)
    assert table(again.trials) == table(whole.trials) and again.round == whole.round and again.spent == SPENT
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_journal_of_another_search_is_no_start(tmp_path: Path) -> None:
    Study(search(), 9, Journal(tmp_path / "journal"), "mine")
    with pytest.raises(BadState, match="another search"):
        Study(search(), 9, Journal(tmp_path / "journal"), "theirs")


@pytest.mark.parametrize(("sampler", "pruner"), [("random", "median"), ("tpe", "none")])
def test_other_ways_to_draw_and_to_end(sampler: str, pruner: str) -> None:
    study = Study(search(sampler=sampler, pruner=pruner), 9)
    led(study, 14)
    assert (PRUNED in {told.state for told in study.trials}) == (pruner == "median")


def test_trials_that_fail_or_are_cut_are_told_apart() -> None:
    study = Study(search(), 9)
    failed, cut, none = study.ask(0, SPENT), study.ask(0, SPENT), study.ask(0, SPENT)
    failed.error, cut.value = "no layers", 1.5
    study.tell(failed, FAILED, 1, SPENT)
    study.tell(cut, CUT, 1, SPENT)
    study.tell(none, PRUNED, 1, SPENT)
    assert study.best is cut and study.importance() == {}
    assert [row["state"] for row in table(study.trials)] == ["failed", "cut", "pruned"]
    assert table(study.trials)[0]["error"] == "no layers" and "error" not in table(study.trials)[1]


def test_without_optuna_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    assert importlib.util.find_spec("optuna") is not None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotSupported, match=r"install llmos\[search\]"):
        check_installed()
