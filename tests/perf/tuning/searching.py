"""Eight trials of a search at once and one after another, in one process and in turn: prints seconds as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tiny_models import silent, source_of

from llmos.drivers.contract import FailedEvent, LoadSettings, TuneDoneEvent, TuneJob
from llmos.drivers.devices.cpu import CpuDevice

from .work import TARGETS

TRIALS = 8


def search(device: CpuDevice, data: Path, recipe: dict[str, Any], parallel: int) -> tuple[float, list[float]]:
    """Seconds from the first step of the job to its end, and the held-out loss of each trial."""
    folder = Path(tempfile.mkdtemp())
    wanted = {
        "space": {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}, "trials": TRIALS, "parallel": parallel,
        "sampler": "random", "pruner": "none",
    }  # fmt: skip
    job = TuneJob("t", "m", {**recipe, "search": wanted}, source_of(data), folder / "out", folder / "keep")
    device.tune(job)
    began = time.perf_counter()
    while True:
        for event in device.step():
            if isinstance(event, FailedEvent):
                raise SystemExit(str(event.error))
            if isinstance(event, TuneDoneEvent):
                values = [float(row["value"]) for row in event.manifest["trials"]]
                return time.perf_counter() - began, values


def main(model: str, data: str, threads: int, rounds: int, steps: int, rows: int, length: int) -> None:
    device = CpuDevice()
    device.start("cpu0", threads, {})
    device.load("m", source_of(Path(model)), LoadSettings(dtype="float32"), silent)
    recipe = {
        "method": "lora", "rank": 8, "target_modules": list(TARGETS), "batch_size": rows, "max_steps": steps,
        "max_length": length, "eval_fraction": 0.02, "checkpoint_every": 10**6,
        "options": {"long": "cut", "evaluate_every": steps},
    }  # fmt: skip
    alone, together, apart = [], [], 0.0
    for number in range(rounds + 1):
        one, values = search(device, Path(data), recipe, 1)
        all_, same = search(device, Path(data), recipe, TRIALS)
        apart = max(apart, *(abs(a - b) / abs(b) for a, b in zip(same, values, strict=True)))
        if number:  # the first pair makes what all need
            alone.append(one)
            together.append(all_)
    print(json.dumps({"alone": alone, "together": together, "apart": apart, "trials": TRIALS}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:8]))
