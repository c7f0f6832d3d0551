"""For everybody: by keyboard, on a phone, by screen reader, in dark and light."""

from __future__ import annotations

import pytest
from browser.stage import Stage


def test_everything_by_keyboard(made_up: Stage) -> None:
    made_up.play("keyboard")


def test_no_page_scrolls_sideways_on_a_phone(made_up: Stage) -> None:
    made_up.play("phone")


@pytest.mark.timeout(600)
def test_axe_finds_nothing_serious(made_up: Stage) -> None:
    made_up.play("accessible")
