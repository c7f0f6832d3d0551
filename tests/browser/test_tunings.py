"""Runs of tuning: steered on a real kernel, read and compared."""

from __future__ import annotations

from browser.stage import Stage


def test_a_run_is_begun_paused_resumed_and_cancelled(real: Stage) -> None:
    real.play("steer_tuning")


def test_the_report_of_a_run(made_up: Stage) -> None:
    made_up.play("reports")


def test_runs_side_by_side(made_up: Stage) -> None:
    made_up.play("side_by_side")
