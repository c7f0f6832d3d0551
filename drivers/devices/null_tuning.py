"""Tuning on the null device: jobs with steps, checkpoints and a small result, and nothing learned.

A step takes a batch of lines of the data into a checksum, which is the whole result: two runs that took the same lines
in the same order have equal ones, however often they were interrupted. Options of the recipe: `bytes` that the job is
said to take; `hold`, a pair of a step and a path: the job waits before that step until there is such a file; `fail`, a
step at which it fails.
"""

from __future__ import annotations

import json
import time
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from llmos.drivers.contract import (
    Device, FailedEvent, Row, StepEvent, TuneDoneEvent, TuneEvent, TuneJob, TunePlan, TuneProgressEvent,
)  # fmt: skip
from llmos.syscalls.errors import BadArgument, BadState, DriverFailed, Exists, NotFound

METHODS = ("lora",)
JOB_BYTES = 1 << 16
CHECKPOINT = "checkpoint.json"


@dataclass
class NullTuning:
    """A job and how far it is."""

    job: TuneJob
    steps: int
    batches: Sequence[bytes]
    step: int = 0
    checksum: int = 0
    paused: bool = False
    cancelled: bool = False
    asked: bool = False

    @property
    def options(self) -> Mapping[str, Any]:
        return dict(self.job.recipe.get("options") or {})

    @property
    def bytes(self) -> int:
        return int(self.options.get("bytes", JOB_BYTES))

    @property
    def held(self) -> bool:
        """Whether it has come to the step before which it is to wait."""
        step, path = self.options.get("hold", (-1, ""))
        return bool(self.step == step and not Path(path).exists())

    @property
    def values(self) -> Mapping[str, float]:
        left = float(self.steps - self.step)
        return {"loss": 2.0 / (1 + self.step), "tokens_per_s": 1000.0, "left_s": left, "peak_bytes": float(self.bytes)}

    def go_on(self) -> None:
        """Take up the checkpoint that lies in its folder, if there is one."""
        path = self.job.keep / CHECKPOINT
        if path.exists():
            kept = json.loads(path.read_text())
            self.step, self.checksum = kept["step"], kept["checksum"]

    def write(self) -> TuneProgressEvent:
        """Write a checkpoint: whole or not at all."""
        self.job.keep.mkdir(parents=True, exist_ok=True)
        part = self.job.keep / f"{CHECKPOINT}.part"
        part.write_text(json.dumps({"step": self.step, "checksum": self.checksum}))
        part.replace(self.job.keep / CHECKPOINT)
        self.asked = False
        return self.told("checkpoint")

    def told(self, stage: str) -> TuneProgressEvent:
        return TuneProgressEvent(self.job.id, self.step, self.steps, self.values, stage)

    def advance(self) -> Sequence[StepEvent | TuneEvent]:
        """One step, or the end."""
        job = self.job
        if self.cancelled:
            return [TuneDoneEvent(job.id, "cancelled", self.values)]
        if self.asked:
            return [self.write()]
        if self.paused:
            return []
        if self.step == self.steps:
            self.export()
            return [TuneDoneEvent(job.id, "done", self.values, {"architecture": "Echo", "tasks": ["text-generation"]})]
        if self.step == self.options.get("fail"):
            return [FailedEvent(job.id, DriverFailed(f"step {self.step} failed on order", cause="the recipe"))]
        if self.held:
            time.sleep(0.001)
            return []
        self.checksum = zlib.crc32(self.batches[self.step % len(self.batches)], self.checksum)
        self.step += 1
        every = int(job.recipe.get("checkpoint_every") or 0)
        return [self.told("train"), *([self.write()] if every and self.step % every == 0 else [])]

    def export(self) -> None:
        """The result, as an adapter of one tensor that holds the checksum."""
        data = self.checksum.to_bytes(4, "little")
        tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
        header = json.dumps({"checksum": tensor}).encode()
        folder = self.job.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
        settings = {"peft_type": "LORA", "base_model_name_or_path": self.job.base_path, "r": self.job.recipe["rank"]}
        (folder / "adapter_config.json").write_text(json.dumps(settings))


class NullTuner(Device):
    """The part of the null device that tunes."""

    def __init__(self) -> None:
        self._tunings: dict[str, NullTuning] = {}

    @abstractmethod
    def take_room(self, model: str, size: int) -> None:
        """Raises NotFound and BadState for a model that is not awake, NoDeviceMemory."""

    def plan_tune(self, job: TuneJob) -> TunePlan:
        return _plan(_tuning(job))

    def tune(self, job: TuneJob) -> TunePlan:
        if job.id in self._tunings:
            raise Exists(f"a job {job.id} runs already")
        tuning = _tuning(job)
        self.take_room(job.model, tuning.bytes)
        tuning.go_on()
        self._tunings[job.id] = tuning
        return _plan(tuning)

    def pause_tune(self, job: str) -> None:
        self._tuning(job).paused = True

    def resume_tune(self, job: str) -> None:
        self._tuning(job).paused = False

    def checkpoint_tune(self, job: str) -> None:
        self._tuning(job).asked = True

    def cancel_tune(self, job: str) -> None:
        """Have the next step end a job, if there is one of that name."""
        tuning = self._tunings.get(job)
        if tuning is not None:
            tuning.cancelled = True

    def tune_on(self) -> list[StepEvent | TuneEvent]:
        """One step of each job."""
        events: list[StepEvent | TuneEvent] = []
        for name, tuning in list(self._tunings.items()):
            happened = tuning.advance()
            events += happened
            if any(isinstance(event, TuneDoneEvent | FailedEvent) for event in happened):
                del self._tunings[name]
        return events

    def end_tunings(self, model: str) -> list[StepEvent | TuneEvent]:
        """The jobs of a model that leaves fail."""
        ended = [name for name, tuning in self._tunings.items() if tuning.job.model == model]
        for name in ended:
            del self._tunings[name]
        gone = BadState("the model was unloaded while it was tuned", state="unloaded")
        return [FailedEvent(name, gone) for name in ended]

    def tuning_rows(self) -> list[Row]:
        return [row for tuning in self._tunings.values() for row in _rows(tuning, tuning.bytes)]

    def _tuning(self, job: str) -> NullTuning:
        try:
            return self._tunings[job]
        except KeyError:
            raise NotFound(f"no job {job} runs here") from None


def _tuning(job: TuneJob) -> NullTuning:
    """A job, checked. Raises BadArgument."""
    recipe = job.recipe
    if recipe["method"] not in METHODS:
        want = ", ".join(METHODS)
        text = f"method is {recipe['method']!r}; the null device pretends to {want}"
        raise BadArgument(text, name="method", got=recipe["method"], want=want)
    lines = [line for file in job.data.files for line in file.path.read_bytes().splitlines() if line.strip()]
    if not lines:
        raise BadArgument(f"{job.data.path} has no rows", name="data", got="0 rows", want="at least one")
    size = int(recipe["batch_size"])
    batches = [b"\n".join(lines[at : at + size]) for at in range(0, len(lines), size)]
    steps = int(recipe["max_steps"]) or ceil(len(batches) * float(recipe["epochs"]))
    return NullTuning(job, steps, batches)


def _rows(tuning: NullTuning, measured: int = 0) -> list[Row]:
    return [Row("tuning", tuning.job.id, predicted=tuning.bytes, allocator=measured, driver=measured)]


def _plan(tuning: NullTuning) -> TunePlan:
    data = b"\n".join(tuning.batches)
    tokens = tuning.steps * len(data) // len(tuning.batches)
    return TunePlan(_rows(tuning), tuning.steps, tokens, {"data_crc32": f"{zlib.crc32(data):08x}"})
