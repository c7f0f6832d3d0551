"""Ours: the CPU device in this process, without the kernel around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
import transformers

from llmos.drivers.contract import (
    ChunkEvent, DoneEvent, EmbedSettings, FailedEvent, LoadSettings, ModelSource, Prompt, Request, SamplingParams,
    SourceFile,
)  # fmt: skip
from llmos.drivers.devices.cpu import CpuDevice
from llmos.drivers.ops.table import OpTable

from .peer import Clock, Continuous, Job, Room, Step

MODEL = "m"
OPS = (
    "add_rms_norm", "gelu_mul", "gelu_tanh_mul", "lora_expand", "lora_shrink", "packed_attention", "paged_attention",
    "rms_norm", "rope", "rope_write", "silu_mul", "write_kv",
)  # fmt: skip


def source(folder: Path) -> ModelSource:
    """The files of a folder, as a file system would locate them."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    return ModelSource(str(folder), "v1", [SourceFile(path.name, path, path.stat().st_size) for path in paths])


def silent(done: int, total: int, unit: str = "bytes", stage: str = "") -> None:
    """A listener to progress that does not listen."""


def record(table: OpTable) -> None:
    """Let the ops of a table tell torch's profiler of themselves; it sees nothing of those in C++ by itself."""
    for op in (*OPS, "linear"):
        for name in reversed(table.names(op)):
            there = table.implementation(op, name)
            call = partial(_recorded_layer, there.call) if op == "linear" else _recorded(f"{op} {name}", there.call)
            table.register(op, f"recorded {name}", call, there.supports)


def _recorded(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*given: Any, **more: Any) -> Any:
        with torch.profiler.record_function(name):
            return call(*given, **more)

    return run


def _recorded_layer(make: Callable[..., Any], *given: Any) -> Any:
    layer = make(*given)
    layer.product = _recorded(f"linear {layer.out_features}x{layer.in_features}", layer.product)
    return layer


class Ours(Continuous):
    """Requests stream, so that each token has a time."""

    def __init__(self) -> None:
        self._recorded = False

    def load(self, folder: Path, room: Room) -> Mapping[str, Any]:
        self._device = CpuDevice()
        self._device.start("cpu0", room.threads, {})
        if self._recorded:
            record(self._device.ops)
        self._numbers = count()
        self._running: dict[str, int] = {}
        settings = LoadSettings(max_context=room.context)
        began = time.perf_counter()
        loaded = self._device.load(MODEL, source(folder), settings, silent)
        return {
            "transformers": transformers.__version__, "torch": torch.__version__, "rung": loaded.rung,
            "reasons": list(loaded.rung_reasons), "load_seconds": time.perf_counter() - began,
            "ops": {op: list(self._device.ops.names(op)) for op in ("linear", "paged_attention", "rms_norm")},
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
        """Seconds of decoding steps, and of how much of such steps ops were at work, by torch's profiler.

        As many steps are measured without the profiler as with it, since that itself takes time: between the ops, and
        little of it within them. Ops in C++ are seen after `record` alone.
        """
        generator = torch.Generator().manual_seed(0)
        for number in range(rows):
            prompt = torch.randint(10, 1000, (context,), generator=generator).tolist()
            self.submit(number, Job(prompt, 2 * steps + 8))
        got = [0] * rows
        while min(got) < 4:
            for number, tokens in self.step():
                got[number] += len(tokens)
        plain = [_timed(self.step) for _ in range(steps)]
        profiled, busy, kinds = [], [], dict[str, float]()
        for _ in range(steps):
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
                profiled.append(_timed(self.step))
            busy.append(_add_ops(profile, kinds))
        self.cancel(range(rows))
        ops = {name: seconds / steps for name, seconds in kinds.items()}
        return {"plain": plain, "profiled": profiled, "busy": busy, "ops": ops}

    def record(self) -> None:
        """Models that are loaded from now on tell the profiler of their ops."""
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
