"""What a process that serves a model grows by when the model is tuned, too: prints bytes as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import psutil
from tiny_models import silent, source_of

from llmos.drivers.contract import FailedEvent, LoadSettings, TuneDoneEvent, TuneJob
from llmos.drivers.devices.cpu import CpuDevice

from .work import LENGTH, TARGETS


def main(model: str, data: str, threads: int) -> None:
    device, process = CpuDevice(), psutil.Process()
    device.start("cpu0", threads, {})
    device.load("m", source_of(Path(model)), LoadSettings(dtype="bfloat16", max_context=LENGTH), silent)
    weights = sum(row.allocator for row in device.memory() if row.what == "weights")
    held = most = process.memory_info().rss
    folder = Path(tempfile.mkdtemp())
    recipe = {
        "method": "lora", "target_modules": list(TARGETS), "batch_size": 1, "max_steps": 2, "max_length": LENGTH,
        "checkpoint_every": 10**6, "options": {"long": "cut", "gradient_checkpointing": True},
    }  # fmt: skip
    plan = device.tune(TuneJob("t", "m", recipe, source_of(Path(data)), folder / "out", folder / "keep"))
    while True:
        events = device.step()
        most = max(most, process.memory_info().rss)
        failed = [event for event in events if isinstance(event, FailedEvent)]
        if failed:
            raise SystemExit(str(failed[0].error))
        if any(isinstance(event, TuneDoneEvent) for event in events):
            break
    print(json.dumps({"weights": weights, "grown": most - held, "planned": plan.rows[0].predicted}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
