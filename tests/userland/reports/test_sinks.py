"""Curves of runs in the files of programs that show them, read back with these programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmos.syscalls.errors import NotSupported
from llmos.userland.reports import sinks

RUN = {"curve": [{"step": 1, "at": 5.0, "loss": 2.0}, {"step": 2, "at": 6.0, "loss": 1.0, "eval_loss": 1.5}]}


def read(folder: Path) -> list[tuple[str, int, float]]:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    events = [event for file in sorted(folder.iterdir()) for event in loader.EventFileLoader(str(file)).Load()]
    return [(each.tag, event.step, each.tensor.float_val[0]) for event in events for each in event.summary.value]


def test_a_whole_curve_and_a_live_one_in_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    openers = sinks.wanted(str(tmp_path), "")
    with sinks.opened(openers, "t-1", {}) as opened:
        assert sinks.send(opened, RUN) == 2 and opened[0].place == str(tmp_path / "t-1")
    assert read(tmp_path / "t-1") == [("loss", 1, 2.0), ("loss", 2, 1.0), ("eval_loss", 2, 1.5)]
    with sinks.opened(openers, "t-2", {}) as opened:
        for stage in ("begin", "train", "evaluate"):
            sinks.follow(opened, {"stage": stage, "done": 3, "total": 4, "unit": "steps", "loss": 0.5, "eval_loss": 4})
    assert read(tmp_path / "t-2") == [("loss", 3, 0.5), ("eval_loss", 3, 4.0)]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_name: str) -> Any:
        return None

    monkeypatch.setattr(sinks, "find_spec", nothing)
    with pytest.raises(NotSupported, match=r"pip install 'llmos\[wandb\]'"):
        sinks.wanted("", "project")
    assert sinks.wanted("", "") == []
