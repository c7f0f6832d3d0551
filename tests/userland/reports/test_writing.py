"""The files of a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tuning_reports
from llmos.userland.reports import pictures, writing


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures without matplotlib, which `test_pictures` covers: it keeps files open."""

    def draw(_report: object, _curves: object, folder: Path) -> dict[str, str]:
        (folder / "roc.png").write_bytes(b"")
        return {"ROC": "roc.png"}

    monkeypatch.setattr(pictures, "draw", draw)


def test_page_text_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "available", lambda: True)
    run = tuning_reports.run()
    names = writing.write(run, {"loss": [(1.0, 2.0)]}, tmp_path / "deep" / "er")
    folder = tmp_path / "deep" / "er"
    assert names[:3] == ["report.html", "report.txt", "report.json"]
    assert {path.name for path in folder.iterdir()} == set(names)
    assert json.loads((folder / "report.json").read_text()) == run["facts"]["report"]
    assert "accuracy" in (folder / "report.txt").read_text()
    page = (folder / "report.html").read_text()
    assert all(f'src="{name}"' in page for name in names[3:])


def test_without_matplotlib_there_are_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "available", lambda: False)
    assert len(writing.write(tuning_reports.run(), {"loss": [(1.0, 2.0)]}, tmp_path)) == 3
    assert "<img" not in (tmp_path / "report.html").read_text()
