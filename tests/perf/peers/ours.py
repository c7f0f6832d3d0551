"""Ours: the CPU device in this process, without the kernel around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers

from llmos.drivers.contract import (
    ChunkEvent, DoneEvent, EmbedSettings, FailedEvent, LoadSettings, ModelSource, Prompt, Request, SamplingParams,
    SourceFile,
)  # fmt: skip
from llmos.drivers.devices.cpu import CpuDevice

from .peer import Clock, Continuous, Job, Room, Step

MODEL = "m"
OPS = ("linear", "quantized_linear", "paged_attention", "rms_norm")
"""Whose implementations are told."""


def source(folder: Path) -> ModelSource:
    """The files of a folder, as a file system would locate them."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    return ModelSource(str(folder), "v1", [SourceFile(path.name, path, path.stat().st_size) for path in paths])


def silent(done: int, total: int, unit: str = "bytes", stage: str = "") -> None:
    """A listener to progress that does not listen."""


class TimedLibrary:
    """The functions in C++ and the seconds spent in them: torch's profiler sees nothing of them, and with the Python
    around them the time would not be theirs."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._library, name)

        def run(*given: Any) -> None:
            began = time.perf_counter()
            function(*given)
            self.seconds += time.perf_counter() - began

        self.__dict__[name] = run
        return run


class Ours(Continuous):
    """Requests stream, so that each token has a time."""

    def __init__(self) -> None:
        self._recorded = False

    def load(self, folder: Path, room: Room) -> Mapping[str, Any]:
        self._device = CpuDevice()
        self._device.start("cpu0", room.threads, {})
        if self._recorded:
            native = self._device._native
            assert native is not None
            native.__dict__["run"] = self._library = TimedLibrary(native.run)
        self._numbers = count()
        self._running: dict[str, int] = {}
        quant = None if room.bits == 16 else {"width": room.bits}
        settings = LoadSettings(max_context=room.context, quant=quant)
        began = time.perf_counter()
        loaded = self._device.load(MODEL, source(folder), settings, silent)
        return {
            "transformers": transformers.__version__, "torch": torch.__version__, "rung": loaded.rung,
            "reasons": list(loaded.rung_reasons), "load_seconds": time.perf_counter() - began,
            "ops": {op: list(self._device.ops.names(op)) for op in OPS},
        }  # fmt: skip

    def adapt(self, folders: Sequence[str]) -> list[str]:
        """Load adapters beside the model; their names for jobs."""
        names = [Path(folder).name for folder in folders]
        for name, folder in zip(names, folders, strict=True):
            self._device.load(name, source(Path(folder)), LoadSettings(), silent, base=MODEL)
        return names

    def submit(self, number: int, job: Job) -> None:
        id = f"r{next(self._numbers)}"
        self._running[id] = number
        sampling = SamplingParams(max_tokens=job.new_tokens, ignore_eos=True)
        prompt = Prompt(ids=list(job.prompt))
        self._device.submit(Request(id, job.adapter or MODEL, prompt, sampling=sampling, stream=True))

    def step(self) -> Step:
        told = []
        for event in self._device.step():
            if isinstance(event, FailedEvent):
                raise event.error
            if isinstance(event, ChunkEvent) and event.request in self._running:
                told.append((self._running[event.request], event.tokens))
            elif isinstance(event, DoneEvent):
                self._running.pop(event.request, None)
        return told

    def cancel(self, numbers: Sequence[int]) -> None:
        for id in [id for id, number in self._running.items() if number in numbers]:
            self._device.cancel(id)
        while self._running:
            self.step()

    def embed(self, texts: Sequence[str]) -> dict[str, Any]:
        """Vectors of all texts, asked for at once."""
        clock, ids = Clock(), [f"r{next(self._numbers)}" for _ in texts]
        for id, text in zip(ids, texts, strict=True):
            self._device.submit(
                Request(id, MODEL, Prompt(text=text), task="feature-extraction", embed=EmbedSettings())
            )
        vectors: dict[str, Any] = {}
        while len(vectors) < len(ids):
            for event in self._device.step():
                if isinstance(event, FailedEvent):
                    raise event.error
                if isinstance(event, DoneEvent):
                    vectors[event.request] = (event.embeddings or [[]])[0]
        return {"seconds": clock(), "vectors": [list(vectors[id]) for id in ids]}

    def overhead(self, rows: int, context: int, steps: int) -> dict[str, Any]:
        """Seconds of decoding steps, and how much of each was spent in ops, after `record`.

        Those in C++ are timed in the very steps. What torch's own ops take is known from as many steps under its
        profiler, which itself takes time between them.
        """
        generator = torch.Generator().manual_seed(0)
        for number in range(rows):
            prompt = torch.randint(10, 1000, (context,), generator=generator).tolist()
            self.submit(number, Job(prompt, 2 * steps + 8))
        got = [0] * rows
        while min(got) < 4:
            for number, tokens in self.step():
                got[number] += len(tokens)
        plain, ours, others, kinds = [], [], [], dict[str, float]()
        for _ in range(steps):
            self._library.seconds = 0.0
            plain.append(_timed(self.step))
            ours.append(self._library.seconds)
        for _ in range(steps):
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
                self.step()
            others.append(_add_ops(profile, kinds))
        self.cancel(range(rows))
        ops = {name: seconds / steps for name, seconds in kinds.items()} | {"in C++": sum(ours) / steps}
        lost = [1 - (own + median(others)) / whole for own, whole in zip(ours, plain, strict=True)]
        return {"plain": plain, "lost": lost, "ops": ops}

    def record(self) -> None:
        """The ops of models that are loaded from now on are timed."""
        self._recorded = True

    def close(self) -> None:
        if hasattr(self, "_device"):
            self._device.stop()


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _add_ops(profile: Any, kinds: dict[str, float]) -> float:
    """Seconds of the ops of one step that no other op called; adds them to `kinds` by name."""
    total = 0.0
    for event in profile.events():
        if event.cpu_parent is None:
            seconds = event.time_range.elapsed_us() / 1e6
            kinds[event.name] = kinds.get(event.name, 0.0) + seconds
            total += seconds
    return total
