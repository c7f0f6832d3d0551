"""Pictures of a report, where matplotlib is installed: in a process of their own, as it keeps files of fonts open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tuning_reports
from llmos.userland.reports import pictures

needed = pytest.mark.skipif(not pictures.available(), reason="matplotlib is not installed: install llmos[plots]")

_CHILD = """
import json, sys
from pathlib import Path
from llmos.userland.reports.pictures import draw
print(json.dumps(draw(*json.load(sys.stdin), Path(sys.argv[1]))))
"""


def drawn(report: dict[str, Any], curves: dict[str, Any], folder: Path) -> dict[str, str]:
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder)], input=json.dumps([report, curves]), capture_output=True, text=True,
        env=os.environ | {"MPLCONFIGDIR": str(folder.parent)}, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    made: dict[str, str] = json.loads(child.stdout)
    return made


@needed
def test_each_is_a_png_and_what_is_not_there_is_not_drawn(tmp_path: Path) -> None:
    folder, other = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    other.mkdir()
    report = tuning_reports.run()["facts"]["report"]
    made = drawn(report, {"loss": [(1, 2.0), (2, 1.0)], "eval loss": []}, folder)
    assert sorted(made.values()) == ["confusion.png", "curves.png", "precision-recall.png", "roc.png"]
    for name in made.values():
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert drawn({"figures": {}}, {}, other) == {} and not list(other.iterdir())
