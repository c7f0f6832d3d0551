"""Serving at half the load that the device can carry, beside a job that computes or is paused: prints figures as JSON.

In one process and on the work thread of a host, as there: a step, then what has arrived.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tiny_models import silent, source_of

from llmos.drivers.contract import (
    ChunkEvent, DoneEvent, FailedEvent, LoadSettings, Prompt, Request, SamplingParams, TuneDoneEvent, TuneJob,
)  # fmt: skip
from llmos.drivers.devices.cpu import CpuDevice
from llmos.drivers.tuning.runner import TuneRunner

from .work import LENGTH, TARGETS

PROMPT, NEW = 64, 48


@dataclass
class Seen:
    """Of one period."""

    gaps: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    tuned_s: float = 0.0
    served_s: float = 0.0
    whole_s: float = 0.0
    requests: int = 0


class Bench:
    """A device, its clock of requests, and how long its job computed."""

    def __init__(self, model: Path, data: Path, threads: int) -> None:
        self.device = CpuDevice()
        self.device.start("cpu0", threads, {})
        self.device.load("m", source_of(model), LoadSettings(dtype="float32", max_context=512), silent)
        self.numbers = count()
        self.chance = random.Random(1)
        self.data = data
        self.tuned_s = 0.0
        plain = TuneRunner.step

        def timed(runner: TuneRunner) -> list[Any]:
            began = time.perf_counter()
            events = plain(runner)
            self.tuned_s += time.perf_counter() - began
            return events

        TuneRunner.step = timed  # type: ignore[method-assign]

    def request(self) -> Request:
        ids = [self.chance.randrange(3, 900) for _ in range(PROMPT)]
        sampling = SamplingParams(max_tokens=NEW, ignore_eos=True)
        return Request(f"r{next(self.numbers)}", "m", Prompt(ids=ids), sampling=sampling, stream=True)

    def alone_s(self) -> float:
        """What one request takes by itself."""
        taken = []
        for _ in range(4):
            began = time.perf_counter()
            self.device.submit(self.request())
            while not any(isinstance(event, DoneEvent) for event in self.device.step()):
                pass
            taken.append(time.perf_counter() - began)
        return min(taken)

    def tune(self) -> None:
        folder = Path(tempfile.mkdtemp())
        recipe = {
            "method": "lora", "target_modules": list(TARGETS), "batch_size": 1, "max_steps": 10**5,
            "max_length": LENGTH, "checkpoint_every": 10**6, "options": {"long": "cut"},
        }  # fmt: skip
        self.device.tune(TuneJob("t", "m", recipe, source_of(self.data), folder / "out", folder / "keep"))

    def end(self) -> None:
        self.device.cancel("t")
        while not any(isinstance(event, TuneDoneEvent) for event in self.device.step()):
            pass

    def period(self, seconds: float, between: float, seed: int) -> Seen:
        """Poisson arrivals, `between` seconds apart in the mean."""
        seen, arrivals = Seen(), random.Random(seed)
        last: dict[str, float] = {}
        began, before = time.perf_counter(), self.tuned_s
        due, tuned_before = began + arrivals.expovariate(1 / between), 0.0
        while (now := time.perf_counter()) < began + seconds:
            while due <= now:
                request = self.request()
                self.device.submit(request)
                last[request.id] = -due
                due += arrivals.expovariate(1 / between)
                seen.requests += 1
            tuned_before = self.tuned_s
            events = self.device.step()
            after = time.perf_counter()
            if last:
                seen.served_s += (after - now) - (self.tuned_s - tuned_before)
            for event in events:
                if isinstance(event, FailedEvent):
                    raise SystemExit(str(event.error))
                if isinstance(event, ChunkEvent):
                    at = last[event.request]
                    (seen.gaps if at > 0 else seen.firsts).append(after - abs(at))
                    last[event.request] = after
                if isinstance(event, DoneEvent):
                    last.pop(event.request, None)
        while last:
            ended = {event.request for event in self.device.step() if isinstance(event, DoneEvent)}
            last = {id: at for id, at in last.items() if id not in ended}
        seen.whole_s, seen.tuned_s = seconds, self.tuned_s - before
        return seen


def main(model: str, data: str, threads: int, rounds: int, seconds: int) -> None:
    bench = Bench(Path(model), Path(data), threads)
    between = bench.alone_s() / 0.5
    alone, beside = [], []
    bench.tune()
    for number in range(rounds):  # the same job, paused and not: nothing else differs between two periods
        bench.device.pause_tune("t")
        alone.append(bench.period(seconds, between, number))
        bench.device.resume_tune("t")
        beside.append(bench.period(seconds, between, number))
    bench.end()
    print(json.dumps({
        "alone": [vars(each) for each in alone], "beside": [vars(each) for each in beside], "between": between,
    }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
