"""A kernel that is killed under the page, and comes back."""

from __future__ import annotations

from browser.stage import Stage


def test_the_page_survives_a_kernel_restart(mortal: Stage) -> None:
    mortal.play("survive")
