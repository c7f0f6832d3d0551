"""Records of runs: curves that go back and stay bounded, files that are replaced, kept and forgotten."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from run_records import run

from llmos.kernel.tunes import runs
from llmos.kernel.tunes.runs import Runs


def test_a_curve_grows_and_goes_back_to_what_is_told_again() -> None:
    one = run()
    for step in (1, 2, 3):
        one.told(step, float(step), {"loss": 1 / step})
    one.told(3, 3.5, {"eval_loss": 0.5})
    assert one.curve[-1] == {"step": 3, "at": 3.5, "loss": 1 / 3, "eval_loss": 0.5}
    one.told(2, 9.0, {"loss": 0.4})
    assert [(point["step"], point["loss"]) for point in one.curve] == [(1, 1.0), (2, 0.4)]
    assert (one.step, one.values) == (2, {"loss": 0.4, "eval_loss": 0.5})
    one.told(1, 10.0, {})
    assert [point["step"] for point in one.curve] == [1]


def test_a_step_between_two_that_were_told_replaces_what_came_later() -> None:
    one = run()
    one.told(2, 1.0, {"loss": 1.0, "eval_loss": 3.0})
    one.told(1, 2.0, {"loss": 2.0})
    assert one.curve == [{"step": 1, "at": 2.0, "loss": 2.0}]


def test_what_is_no_number_is_left_out_and_the_record_can_be_read(folder: Path) -> None:
    one = run()
    one.told(1, 1.0, {"loss": math.nan, "eval_loss": math.inf, "tokens_per_s": 3.0})
    Runs(folder).write(one)
    assert one.curve == [{"step": 1, "at": 1.0, "tokens_per_s": 3.0}] and Runs(folder).read("t-1") == one


def test_long_curves_are_thinned_but_for_evaluations_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "POINTS", 8)
    one = run()
    for step in range(1, 101):
        one.told(step, 0.0, {"loss": 1.0, **({"eval_loss": 1.0} if step == 50 else {})})
        assert len(one.curve) <= 9
    steps = [point["step"] for point in one.curve]
    assert steps == sorted(steps) and steps[0] == 1 and steps[-1] == 100 and 50 in steps


def test_records_stay_over_a_boot_and_the_oldest_are_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KEPT", 2)
    first = Runs(folder / "runs")
    assert first.write(run("a", "done")) == [] and first.write(run("b")) == []
    assert first.write(run("b", "paused")) == []
    again = Runs(folder / "runs")
    assert set(again.names) == {"a", "b"} and [each.id for each in again.unfinished()] == ["b"]
    assert first.write(run("c")) == ["a"] and first.read("a") is None and list(first.names) == ["b", "c"]
    assert not list((folder / "runs").glob("*.part"))


def test_a_record_that_is_damaged_is_none(folder: Path) -> None:
    Runs(folder).write(run())
    (folder / "t-1.json").write_bytes(b'{"id": "t-1"')
    broken = Runs(folder)
    assert broken.read("t-1") is None and broken.unfinished() == [] and broken.text("t-1") == b'{"id": "t-1"'
    assert broken.text("none") == b"{}"
