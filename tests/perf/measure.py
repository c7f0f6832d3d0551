"""How benches measure: interleaved repeats, medians, every figure beside its peer of the same run."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REPEATS = 5

Case = Callable[[], Sequence[float]]
"""Runs one repeat and gives its samples, in seconds."""


@dataclass(frozen=True)
class Row:
    """One figure: ours, its peer's, the ratio, what was aimed at and whether it was reached (None: no aim)."""

    name: str
    ours: float
    peer: float | None
    unit: str
    ratio: float | None
    aim: str
    met: bool | None
    note: str = ""


def interleaved(cases: Mapping[str, Case], repeats: int = REPEATS) -> dict[str, list[list[float]]]:
    """All cases in turn, `repeats` times over, so that a machine that drifts drifts for all of them."""
    samples: dict[str, list[list[float]]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            samples[name].append(sorted(case()))
    return samples


def quantile(repeats: Sequence[Sequence[float]], q: float) -> float:
    """The median over the repeats of one quantile."""
    return statistics.median(one[min(len(one) - 1, int(len(one) * q))] for one in repeats)


def timed(call: Callable[[], object], count: int) -> list[float]:
    """Seconds of each of `count` calls."""
    clock = time.perf_counter
    samples = []
    for _ in range(count):
        began = clock()
        call()
        samples.append(clock() - began)
    return samples


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def show(title: str, rows: Sequence[Row]) -> None:
    """The table people read."""
    print(f"\n{title}")
    print(f"  {'':44}{'ours':>12}{'peer':>12}{'ratio':>8}  aim")
    for row in rows:
        peer = f"{row.peer:.4g}" if row.peer is not None else ""
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        verdict = "" if row.met is None else "  met" if row.met else "  MISSED"
        print(f"  {row.name:44}{row.ours:>9.4g} {row.unit:3}{peer:>11}{ratio:>8}  {row.aim}{verdict}  {row.note}")


def save(folder: Path, name: str, facts: Mapping[str, Any], rows: Sequence[Row]) -> Path:
    """Keep the raw figures, one file a run."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = str(facts["date"]).replace(":", "").replace("+0000", "Z")
    path = folder / f"{name}-{stamp}.json"
    path.write_text(json.dumps({"machine": dict(facts), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return path
