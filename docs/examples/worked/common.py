"""What the examples share: rows into the namespace, a tuning task that is followed, its report, and tables."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRIVERS = ("cpu0", "models", "files")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished task of tuning.

    Attributes:
        path: of the result, a version of an entry of /models.
        report: figures of held-out rows before and after, with intervals; classes and curves.
        plan: what it was known to take before it began, in bytes.
        seconds: of computing and of giving way to others.
    """

    path: str
    report: Mapping[str, Any]
    plan: Mapping[str, Any]
    seconds: float


def write_rows(system: Any, folder: str, train: Iterable[Row], held_out: Iterable[Row]) -> str:
    """Rows to learn from, and rows that are only judged by: a file named `validation` is never trained on."""
    for name, rows in (("train", train), ("validation", held_out)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        system.write(f"{folder}/{name}.jsonl", lines.encode())
    return folder


def tune(system: Any, model: Any, recipe: Mapping[str, Any], data: str, out: str) -> Run:
    """Tune, follow it with one line, and read the record of the run."""
    started = time.monotonic()
    task = model.tune(recipe, data=data, out=out, work_class="batch")
    for told in task:
        if told.get("total") and sys.stderr.isatty():
            sys.stderr.write(f"\r  {out}: step {told['done']} of {told['total']}   ")
    result = task.wait()
    took = time.monotonic() - started
    sys.stderr.write(f"\r  {out}: {result.state} after {took:.0f} s{' ' * 20}\n")
    if result.state != "done":
        raise SystemExit(f"{out} was not tuned: {result.value}")
    facts = json.loads(system.read(f"/sys/runs/{result.id}"))["facts"]
    return Run(result.value["path"], facts["report"], facts["bytes"], took)


def weights_of(home: Path, path: str) -> Path:
    """The folder of the newest version of an entry, for libraries that read folders of this machine."""
    versions = home / path.lstrip("/") / "versions"
    return max(versions.iterdir(), key=lambda folder: folder.stat().st_mtime)


def interval(span: Sequence[float], digits: int = 3) -> str:
    """A value with the ends of its interval."""
    value, *ends = (f"{each:.{digits}f}" for each in span)
    return f"{value} ({ends[0]} to {ends[1]})" if ends else value


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def confusion(report: Mapping[str, Any]) -> str:
    """What was taken for what, after tuning: rows are what is right."""
    classes = report["classes"]
    rows = [[name, *counts] for name, counts in zip(classes["names"], classes["after"]["confusion"], strict=True)]
    return table(["right \\ said", *classes["names"]], rows)
