"""The page comes up, lets the right people in, and is live; the pictures of the docs are taken on request."""

from __future__ import annotations

import os

import pytest
from browser.stage import Stage


def test_load(real: Stage) -> None:
    real.play("load")


def test_charts_show_what_was_before(made_up: Stage) -> None:
    made_up.play("before")


def test_a_key_with_few_scopes(real: Stage) -> None:
    real.play("limited")


def test_the_theme_follows_the_system_and_the_reader(made_up: Stage) -> None:
    made_up.play("themes")


@pytest.mark.skipif("LLMOS_PICTURES" not in os.environ, reason="LLMOS_PICTURES names no folder for pictures")
def test_pictures(made_up: Stage) -> None:
    made_up.play("pictures", os.environ["LLMOS_PICTURES"])
