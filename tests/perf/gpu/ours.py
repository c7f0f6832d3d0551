"""The engine, driven as a device's host drives it: requests in, a step at a time, tokens out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from llmos.drivers.contract import (
    ChunkEvent, DoneEvent, FailedEvent, LoadedModel, LoadSettings, ModelSource, Prompt, Request, SamplingParams,
    SourceFile,
)  # fmt: skip

from .clock import synchronize
from .engines import make_engine

MODEL = "m"


@dataclass
class Stream:
    """A request under way: its tokens, and the time of each."""

    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    submitted: float = 0.0
    done: bool = False


def source(folder: Path) -> ModelSource:
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    return ModelSource(str(folder), "v1", [SourceFile(path.name, path, path.stat().st_size) for path in paths])


def host_peak() -> int:
    """Bytes of the host that this process has had at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def silent(done: int, total: int, unit: str = "bytes", stage: str = "") -> None:
    """A listener to progress that does not listen."""


class Ours:
    """One model. `eager`: steps are launched one by one, never replayed; `quant`: weights are quantized at load."""

    def __init__(
        self, folder: Path, device: str, context: int, eager: bool = False, quant: Mapping[str, Any] | None = None
    ) -> None:
        self.device = device
        self.peaks: dict[str, int] = {}
        """Bytes that loading took at most, of the device where it has memory of its own, and of the host."""
        self.engine = make_engine(device, eager, lambda most: self.peaks.update(device_peak=most))
        self._numbers = count()
        self._streams: dict[str, Stream] = {}
        synchronize(device)
        before, began = host_peak(), time.perf_counter()
        dtype = "bfloat16" if device == "cuda" else "auto"
        settings = LoadSettings(dtype=dtype, max_context=context, quant=quant)
        self.loaded: LoadedModel = self.engine.load(MODEL, source(folder), settings, silent)
        synchronize(device)
        self.load_seconds = time.perf_counter() - began
        self.peaks["host_peak"] = host_peak() - before

    def add(self, folder: Path, name: str) -> None:
        """An adapter."""
        self.engine.load(name, source(folder), LoadSettings(), silent, base=MODEL)

    def submit(self, prompt: Sequence[int], new_tokens: int, model: str = MODEL) -> Stream:
        id = f"r{next(self._numbers)}"
        stream = self._streams[id] = Stream(submitted=time.perf_counter())
        sampling = SamplingParams(max_tokens=new_tokens, ignore_eos=True)
        self.engine.submit(Request(id, model, Prompt(ids=list(prompt)), sampling=sampling, stream=True))
        return stream

    def step(self) -> None:
        for event in self.engine.step():
            if isinstance(event, FailedEvent):
                raise event.error
            if isinstance(event, ChunkEvent) and event.tokens:
                stream = self._streams[event.request]
                stream.tokens += event.tokens
                stream.times += [time.perf_counter()] * len(event.tokens)
            elif isinstance(event, DoneEvent):
                stream = self._streams.pop(event.request)
                stream.done = True

    def run(self, *streams: Stream) -> None:
        """Until all of these are done."""
        while not all(stream.done for stream in streams):
            self.step()

    def seconds_of(self, jobs: Sequence[tuple[Sequence[int], int, str]]) -> float:
        """Wall time of jobs (prompt, new tokens, model) that come at once."""
        began = time.perf_counter()
        self.run(*(self.submit(prompt, new_tokens, model) for prompt, new_tokens, model in jobs))
        return time.perf_counter() - began

    def rate(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, warm: int = 8, models: Sequence[str] = (MODEL,)
    ) -> float:
        """Tokens per second of rows that decode together: what comes after each of them has had `warm` tokens."""
        streams = [
            self.submit(prompt, new_tokens, models[row % len(models)]) for row, prompt in enumerate(prompts)
        ]
        while min(len(stream.tokens) for stream in streams) < warm:
            self.step()
        began, had = time.perf_counter(), sum(len(stream.tokens) for stream in streams)
        while not any(stream.done for stream in streams):
            self.step()
        took, got = time.perf_counter() - began, sum(len(stream.tokens) for stream in streams) - had
        self.run(*streams)
        return got / took

    def facts(self) -> Mapping[str, Any]:
        loaded = self.loaded
        return {
            "rung": loaded.rung, "reasons": list(loaded.rung_reasons), "slots": loaded.slots,
            "load_seconds": self.load_seconds,
        }  # fmt: skip


def prompts(seed: int, rows: int, length: int, vocabulary: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    drawn: list[list[int]] = torch.randint(10, vocabulary, (rows, length), generator=generator).tolist()
    return drawn
