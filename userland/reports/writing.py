"""The report of a run as files: a page, pictures, text, and the plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import pictures, words
from .page import page


def write(run: Mapping[str, Any], curves: Mapping[str, pictures.Curve], folder: Path) -> list[str]:
    """Write `report.html`, `report.txt`, `report.json`, and pictures where matplotlib is.

    Args:
        run: its record, with a report.
        curves: of the run, by name.
        folder: made where it is missing; files of the same names are replaced.

    Returns:
        The names of the files, the page first.

    Raises:
        OSError: one cannot be written.
    """
    report = run["facts"]["report"]
    folder.mkdir(parents=True, exist_ok=True)
    drawn = pictures.draw(report, curves, folder) if pictures.available() else {}
    files = {
        "report.html": page(run, report, drawn), "report.txt": "\n".join(words.lines(report)) + "\n",
        "report.json": json.dumps(report, ensure_ascii=False, indent=1) + "\n",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [*files, *drawn.values()]
