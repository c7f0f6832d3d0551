"""Chats: side by side, and stopped."""

from __future__ import annotations

from browser.stage import Stage


def test_two_models_answer_side_by_side(real: Stage) -> None:
    real.play("chat")


def test_an_answer_is_stopped_and_its_request_ends_in_the_kernel(real: Stage) -> None:
    real.play("cancel")
