"""Tuning's aims, as ratios of one run: LoRA beside plain PEFT and Trainer, what requests feel of a job, and trials of a
search at once."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import REPEATS, Row, quantile

from .work import LENGTH, prepare

ROOT = Path(__file__).resolve().parents[3]
SUITES = ("training", "serving", "memory", "searching", "crashing")
LARGE = "1b"
"""The model beside whose weights the memory of a job is looked at."""
SPEED_AIM, MEMORY_AIM = 1.3, 0.8
P95_AIM, P99_AIM, KEPT_AIM, EXTRA_AIM = 1.15, 1.3, 0.85, 0.15
SEARCH_AIM = 2.0
INTERVAL, CRASHED_STEPS = 4, 24
"""Steps between checkpoints of a job that is killed, and all of its steps."""
SHAPES = ((1, 32), (2, 128))
"""Rows of a trial's step, and tokens of a row: what a search of many small trials has, and what fills the processor."""
BATCH = 8
"""Rows of a step of Trainer; ours has as many tokens in rows that are full."""


def rows(folder: Path, model: str, wanted: Sequence[str], rounds: int = REPEATS, threads: int = 2, quick: bool = False,
         ) -> list[Row]:  # fmt: skip
    """Those wanted of `SUITES`."""
    paths = prepare(folder, model)
    suites: dict[str, Callable[[], list[Row]]] = {
        "training": lambda: training(*paths, 1 if quick else rounds, 4 if quick else 12, threads),
        "serving": lambda: serving(*paths, 1 if quick else rounds, 5 if quick else 20, threads),
        "memory": lambda: memory(*(paths if quick else prepare(folder, LARGE)), threads),
        "searching": lambda: searching(*paths, 1 if quick else rounds, 4 if quick else 12, threads),
        "crashing": lambda: crashing(*paths, threads),
    }
    return [row for name in SUITES if name in wanted for row in suites[name]()]


def training(model: Path, data: Path, rounds: int, steps: int, threads: int) -> list[Row]:
    """Tokens without padding in a second, after the first step, and the most memory of the process; in turn."""
    plain, ours = [], []
    for _ in range(rounds):
        plain.append(_child("plain", model, data, BATCH, steps, threads))
        ours.append(_child("ours", model, data, 2, steps, threads, LENGTH))
    speeds = [statistics.median(each["tokens_per_s"] for each in side) for side in (ours, plain)]
    peaks = [statistics.median(each["peak"] for each in side) / 2**20 for side in (ours, plain)]
    speed, memory = speeds[0] / speeds[1], peaks[0] / peaks[1]
    note = f"{model.name}: PEFT and Trainer, {BATCH} rows padded; ours, 2 rows of {LENGTH} packed"
    least, most = f">= {SPEED_AIM:g} times", f"<= {MEMORY_AIM:g} times"
    return [
        Row("LoRA", *speeds, "tokens/s", speed, least, speed >= SPEED_AIM, note),
        Row("LoRA, most memory", *peaks, "MiB", memory, most, memory <= MEMORY_AIM, "of the whole process"),
    ]


def serving(model: Path, data: Path, rounds: int, seconds: int, threads: int) -> list[Row]:
    """Gaps between tokens at half the load, alone and beside a job; what the job got of the time that was left."""
    seen = _child("serving", model, data, threads, rounds, seconds)
    alone, beside = seen["alone"], seen["beside"]
    made = []
    for q, aim in ((0.5, None), (0.95, P95_AIM), (0.99, P99_AIM), (1.0, None)):
        ms = [quantile([sorted(each["gaps"]) for each in side], q) * 1e3 for side in (beside, alone)]
        ratio = ms[0] / ms[1]
        name = f"gap between tokens, {f'p{q * 100:g}' if q < 1 else 'longest'}"
        made.append(Row(name, *ms, "ms", ratio, f"<= {aim:g}" if aim else "", ratio <= aim if aim else None))
    left = sum(each["whole_s"] - each["served_s"] for each in alone)
    tuned = sum(each["tuned_s"] for each in beside)
    served = statistics.mean(each["served_s"] / each["whole_s"] for each in alone)
    kept = tuned / left
    note = f"serving took {served:.0%} of the time without it"
    made.append(Row("time left that a job got", tuned, left, "s", kept, f">= {KEPT_AIM}", kept >= KEPT_AIM, note))
    return made


def memory(model: Path, data: Path, threads: int) -> list[Row]:
    """What a process grows by at most for a job, beside what a second copy of the weights would take."""
    seen = _child("memory", model, data, threads)
    extra = seen["grown"] / seen["weights"]
    mib = seen["grown"] / 2**20, seen["weights"] / 2**20
    note = f"{model.name}: planned {seen['planned'] / 2**20:.0f} MiB; the rest is what training imports, once"
    name = "memory of a job, beside the weights"
    return [Row(name, *mib, "MiB", extra, f"<= {EXTRA_AIM}", extra <= EXTRA_AIM, note)]


def searching(model: Path, data: Path, rounds: int, steps: int, threads: int) -> list[Row]:
    """Steps of eight trials in a second of a whole search, at once and one trial after another; in turn."""
    made = []
    for rows_, length in SHAPES:
        seen = _child("searching", model, data, threads, rounds, steps, rows_, length)
        speeds = [seen["trials"] * steps / statistics.median(seen[side]) for side in ("together", "alone")]
        ratio = speeds[0] / speeds[1]
        name = f"8 trials at once, {rows_} x {length} tokens"
        note = f"{model.name}: held-out losses apart by {seen['apart']:.0e} at most"
        made.append(Row(name, *speeds, "steps/s", ratio, f">= {SEARCH_AIM:g} times", ratio >= SEARCH_AIM, note))
    return made


def crashing(model: Path, data: Path, threads: int) -> list[Row]:
    """Steps that are made again after `kill -9`, at most, beside those between two checkpoints."""
    seen = _child("crashing", model, data, threads, INTERVAL, CRASHED_STEPS)
    most = max(seen["lost"])
    note = f"{model.name}: {len(seen['lost'])} crashes cost {', '.join(map(str, seen['lost']))} steps"
    return [Row("steps lost by a crash", most, INTERVAL, "steps", most / INTERVAL, "<= 1", most <= INTERVAL, note)]


def _child(program: str, *arguments: object) -> dict[str, Any]:
    """What a program of this folder prints last."""
    here = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(here), str(here.parent), str(ROOT / "build" / "view")])
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-m", f"tuning.{program}", *map(str, arguments)], check=False, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{program} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
