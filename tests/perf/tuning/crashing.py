"""What a job loses when its process is killed: has it done in one, kills that again and again, prints JSON."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tiny_models import silent, source_of

from llmos.drivers.contract import FailedEvent, LoadSettings, TuneDoneEvent, TuneJob, TuneProgressEvent
from llmos.drivers.devices.cpu import CpuDevice

from .work import LENGTH, TARGETS

KILLS = 5


def work(model: str, data: str, threads: int, interval: int, steps: int, folder: str) -> None:
    """The job, from where its last checkpoint is: each step and each checkpoint is a line."""
    device = CpuDevice()
    device.start("cpu0", threads, {})
    device.load("m", source_of(Path(model)), LoadSettings(dtype="float32"), silent)
    recipe = {
        "method": "lora", "rank": 8, "target_modules": list(TARGETS), "batch_size": 2, "max_steps": steps,
        "max_length": LENGTH, "checkpoint_every": interval, "options": {"long": "cut"},
    }  # fmt: skip
    device.tune(TuneJob("t", "m", recipe, source_of(Path(data)), Path(folder) / "out", Path(folder) / "keep"))
    while True:
        for event in device.step():
            if isinstance(event, FailedEvent):
                raise SystemExit(str(event.error))
            if isinstance(event, TuneProgressEvent) and event.stage == "train":
                print(event.step, flush=True)
            if isinstance(event, TuneDoneEvent):
                return


def main(model: str, data: str, threads: int, interval: int, steps: int) -> None:
    """Kill it at steps that a seed draws: how many steps each crash has cost."""
    chance, lost, told = random.Random(1), list[int](), 0
    with tempfile.TemporaryDirectory() as folder:
        for kill in range(KILLS + 1):
            count = chance.randint(1, interval + 1) if kill < KILLS else steps
            seen = _steps(count, model, data, threads, interval, steps, folder)
            if kill:
                lost.append(told - seen[0] + 1)
            told = seen[-1]
    assert told == steps
    print(json.dumps({"lost": lost, "interval": interval}))


def _steps(count: int, *arguments: object) -> list[int]:
    """What a process that does it tells, which is killed when it has told so many steps."""
    command = [sys.executable, "-m", "tuning.crashing", "work", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        seen = []
        for line in child.stdout:
            seen.append(int(line))
            if len(seen) == count:
                break
        child.kill()
    return seen


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:7]), sys.argv[7])
    else:
        main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
