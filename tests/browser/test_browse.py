"""The models: found, looked at, planned, steered; and runs with their curves."""

from __future__ import annotations

from browser.stage import Stage


def test_browse_and_plan(made_up: Stage) -> None:
    made_up.play("browse")


def test_search(made_up: Stage) -> None:
    made_up.play("search")


def test_a_model_is_loaded_put_to_sleep_woken_and_unloaded(real: Stage) -> None:
    real.play("steer")


def test_runs_are_drawn_and_compared(made_up: Stage) -> None:
    made_up.play("runs")


def test_the_journal_the_alerts_and_the_reasons(made_up: Stage) -> None:
    made_up.play("journal")
