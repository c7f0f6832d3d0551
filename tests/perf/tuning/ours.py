"""LoRA as the CPU device tunes, in a process of its own: prints tokens per second and memory as JSON."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import psutil
from tiny_models import silent, source_of

from llmos.drivers.contract import FailedEvent, LoadSettings, TuneDoneEvent, TuneJob, TuneProgressEvent
from llmos.drivers.devices.cpu import CpuDevice

from .work import TARGETS


def main(model: str, data: str, batch: int, steps: int, threads: int, length: int) -> None:
    device = CpuDevice()
    device.start("cpu0", threads, {})
    device.load("m", source_of(Path(model)), LoadSettings(dtype="float32"), silent)
    loaded = psutil.Process().memory_info().rss
    folder = Path(tempfile.mkdtemp())
    recipe = {
        "method": "lora", "rank": 8, "alpha": 16.0, "target_modules": list(TARGETS), "batch_size": batch,
        "max_steps": steps, "max_length": length, "learning_rate": 2e-4, "checkpoint_every": 10**6,
        "options": {"long": "cut"},
    }  # fmt: skip
    job = TuneJob("t", "m", recipe, source_of(Path(data)), folder / "out", folder / "keep")
    plan = device.tune(job)
    times: list[float] = []
    while True:
        for event in device.step():
            if isinstance(event, FailedEvent):
                raise SystemExit(str(event.error))
            if isinstance(event, TuneProgressEvent) and event.stage == "train":
                times.append(time.perf_counter())
            if isinstance(event, TuneDoneEvent):
                tokens = int(event.values["tokens"] * (steps - 1) / steps)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
                speed = tokens / (times[-1] - times[0])
                planned = plan.rows[0].predicted
                print(json.dumps({
                    "tokens_per_s": speed, "peak": peak, "loaded": loaded, "tokens": tokens, "planned": planned
                }))  # fmt: skip
                return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7]))
