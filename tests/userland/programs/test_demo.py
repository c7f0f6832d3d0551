"""The demonstration: on the bundled model, from its start to a clean end."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from llmos.syscalls.errors import NotFound
from llmos.userland.programs import demo


@pytest.mark.slow
def test_it_shows_everything_and_leaves_nothing() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "llmos.userland.programs.demo"], capture_output=True, text=True, check=False, timeout=110
    )
    assert shown.returncode == 0, shown.stderr
    for text in ("accepts calls after", "which models are loaded", "ps", "tokens]", "the kernel is gone"):
        assert text in shown.stdout


def test_a_failure_is_told_in_words(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def missing() -> None:
        raise NotFound("there is no model")

    monkeypatch.setattr(demo, "demo", missing)
    assert demo.main() == 1
    assert capsys.readouterr().err == "llmos demo: there is no model\n"
