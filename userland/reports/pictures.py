"""Pictures of a report as PNG files, drawn with matplotlib where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import words

MISSING = "matplotlib is not installed, so there are no pictures: install llmos[plots]"
Curve = Sequence[tuple[float, float]]


def available() -> bool:
    """Whether there is something to draw with."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(report: Mapping[str, Any], curves: Mapping[str, Curve], folder: Path) -> dict[str, str]:
    """Draw what there is to draw: curves of the run by step, of classes, and what was taken for what.

    Returns:
        Names of the files by their title.

    Raises:
        ImportError: matplotlib is missing.
        OSError: a file cannot be written.
    """
    from matplotlib.figure import Figure

    made: dict[str, str] = {}

    def picture(title: str, name: str, fill: Callable[[Any], None], size: tuple[float, float] = (7, 4.5)) -> None:
        figure = Figure(figsize=size, layout="constrained")
        fill(figure.add_subplot())
        figure.savefig(folder / name, dpi=110)
        made[title] = name

    if any(curves.values()):
        picture("Curves of the run", "curves.png", partial(_lines, curves=curves, across="step"))
    kinds = ("roc.png", "share of false alarms"), ("precision-recall.png", "recall")
    for (title, each), (name, across) in zip(words.charts(report).items(), kinds, strict=False):
        picture(title, name, partial(_lines, curves=each, across=across), (6, 5.5))
    classes = report.get("classes") or {}
    matrix = classes.get("after", {}).get("confusion")
    if matrix:
        side, names = max(4.0, 0.45 * len(matrix) + 2), classes["names"]
        picture("What was taken for what", "confusion.png", partial(_matrix, names=names, matrix=matrix), (side, side))
    return made


def _lines(axes: Any, curves: Mapping[str, Curve], across: str) -> None:
    for name, points in curves.items():
        if points:
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 40 else None)
    axes.set_xlabel(across)
    axes.grid(alpha=0.3)
    axes.legend()


def _matrix(axes: Any, names: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
    """Shades are shares of a row, numbers are counts."""
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("said")
    axes.set_ylabel("right")
    for row, counts in enumerate(matrix):
        for column, count in enumerate(counts):
            dark = shares[row][column] > 0.5
            axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black", fontsize=8)
