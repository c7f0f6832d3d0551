"""What the engine does with a model: decoding alone and among others, prefixes, adapters, sleep, prompts between."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from .clock import synchronize
from .ours import MODEL, Ours, Stream, prompts
from .setting import SHAPES, Found, Setting
from .weights import adapter_of, folder_of

RANK = 16
SHARED = {"shift": False, "method": "rtn", "activations": "auto", "head": 8, "byte_budget": None, "keep": []}
NARROW: Mapping[str, Mapping[str, Any]] = {
    "w4": {**SHARED, "width": 4, "group": 128, "kind": "int"},
    "fp8": {**SHARED, "width": 8, "group": 0, "kind": "float"},
}


def sizes(setting: Setting) -> tuple[int, int]:
    """Tokens of a prompt, and new ones."""
    return setting.pick(128, 12), setting.pick(256, 24)


def requests(setting: Setting) -> tuple[int, int]:
    """The same of many requests at once."""
    return setting.pick(128, 12), setting.pick(512, 24)


def decoding(setting: Setting, model: str) -> Iterator[Found]:
    """One row, and more; of the smallest model also with nothing captured."""
    shape = SHAPES[model]
    folder = folder_of(setting.folder, shape)
    prompt, new = sizes(setting)
    for eager in (False, True) if model == setting.models[0] else (False,):
        ours = Ours(folder, setting.device, context=setting.pick(4096, 256), eager=eager)
        ours.rate(prompts(1, 1, prompt, shape.vocabulary), new // 2)
        way = "eager" if eager else "replayed"
        yield {way: {**ours.facts(), "rate": ours.rate(prompts(2, 1, prompt, shape.vocabulary), new)}}
        if not eager:
            found = {}
            for rows in (16, 64) if not setting.tiny else (2, 3):
                found[str(rows)] = ours.rate(prompts(3, rows, prompt, shape.vocabulary), new)
            yield {"rates": found, "busy": busy(ours, prompts(4, 16, prompt, shape.vocabulary), new)}
        ours.engine.close()
        del ours


def narrow(setting: Setting, model: str, kind: str) -> Iterator[Found]:
    """The same model with weights of a kind of `NARROW`: how it is loaded, one row, and more."""
    shape = SHAPES[model]
    folder = folder_of(setting.folder, shape)
    prompt, new = sizes(setting)
    ours = Ours(folder, setting.device, context=setting.pick(4096, 256), quant=NARROW[kind])
    weights = sum(row.allocator for row in ours.engine.memory() if row.what == "weights")
    yield {"load": {**ours.facts(), "weights": weights, **ours.peaks}}
    ours.rate(prompts(1, 1, prompt, shape.vocabulary), new // 2)
    found = {}
    for rows in (1, setting.pick(64, 3)):
        found[str(rows)] = ours.rate(prompts(2, rows, prompt, shape.vocabulary), new)
        yield {"rates": found}
    ours.engine.close()


def busy(ours: Ours, rows: list[list[int]], new: int) -> float | None:
    """Share of the time in steady decoding in which the device computes; None where it has no clock of its own."""
    if ours.device != "cuda":
        return None
    streams = [ours.submit(row, new) for row in rows]
    while min(len(stream.tokens) for stream in streams) < 16:
        ours.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        synchronize(ours.device)
        began = time.perf_counter()
        for _ in range(32):
            ours.step()
        synchronize(ours.device)
        took = time.perf_counter() - began
    ours.run(*streams)
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / took


def many(setting: Setting) -> Iterator[Found]:
    """The large model among many: requests at once, a prefix that is known, prompts between, adapters, sleep."""
    shape = SHAPES[setting.large]
    folder = folder_of(setting.folder, shape)
    prompt, new = requests(setting)
    rows = setting.pick(64, 3)
    ours = Ours(folder, setting.device, context=setting.pick(8192, 256))
    yield {"load": ours.facts()}
    given = prompts(10, rows, prompt, shape.vocabulary)
    ours.rate(given[:4], setting.pick(128, 12))
    took = ours.seconds_of([(each, new, MODEL) for each in given])
    yield {"requests": {"rows": rows, "prompt": prompt, "new": new, "seconds": took, "rate": rows * new / took}}
    yield {"prefix": prefix(setting, ours)}
    yield {"between": between(setting, ours)}
    yield {"adapters": adapters(setting, ours)}
    woken = wake(ours)
    yield {"wake": woken}
    if not woken["same"]:
        raise RuntimeError("the model answers otherwise after it slept")


def prefix(setting: Setting, ours: Ours) -> Found:
    """Seconds to the first token of a prompt that begins as one before did, or as none did."""
    vocabulary, shared, tail = SHAPES[setting.large].vocabulary, setting.pick(2048, 64), setting.pick(64, 8)
    found: dict[str, list[float]] = {"miss": [], "hit": []}
    for turn in range(6):
        start = prompts(20 + turn, 1, shared, vocabulary)[0]
        for kind, end in zip(found, prompts(40 + turn, 2, tail, vocabulary), strict=True):
            stream = ours.submit(start + end, 1)
            ours.run(stream)
            if turn:
                found[kind].append(stream.times[0] - stream.submitted)
    return {kind: sorted(samples)[len(samples) // 2] for kind, samples in found.items()}


def between(setting: Setting, ours: Ours) -> Found:
    """The p95 of the time between two tokens of running rows, alone and while a long prompt goes through."""
    shape = SHAPES[setting.large]
    prompt, _ = sizes(setting)
    rows, late = setting.pick(16, 2), setting.pick(4096, 64)
    streams = [ours.submit(each, 4 * setting.pick(64, 12)) for each in prompts(50, rows, prompt, shape.vocabulary)]
    warm = setting.pick(96, 10)
    while min(len(stream.tokens) for stream in streams) < warm:
        ours.step()
    settled = [stream.times[warm // 3] for stream in streams]
    other = ours.submit(prompts(51, 1, late, shape.vocabulary)[0], 1)
    ours.run(other)
    ours.run(*streams)
    before = gaps(streams, max(settled), other.submitted)
    during = gaps(streams, other.submitted, other.times[0])
    return {"alone_p95": percentile(before, 0.95), "during_p95": percentile(during, 0.95)}


def gaps(streams: Sequence[Stream], since: float, until: float) -> list[float]:
    """Seconds between the tokens that came between two times."""
    found: list[float] = []
    for stream in streams:
        inside = [at for at in stream.times if since <= at <= until]
        found += [after - before for before, after in pairwise(inside)]
    return found


def percentile(samples: list[float], share: float) -> float | None:
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * share))] if samples else None


def adapters(setting: Setting, ours: Ours) -> Found:
    """Tokens per second of rows of the base, of as many rows of eight adapters, and of one adapter after another."""
    shape = SHAPES[setting.large]
    prompt, new = sizes(setting)
    count, rows = setting.pick(8, 2), setting.pick(32, 4)
    names = [f"a{number}" for number in range(count)]
    given = prompts(60, rows, prompt, shape.vocabulary)
    base = ours.seconds_of([(each, new, MODEL) for each in given])
    for number, name in enumerate(names):
        ours.add(adapter_of(setting.folder, shape, RANK, number), name)
    ours.rate(given[:2], new // 2, models=names)
    mixed = ours.seconds_of([(each, new, names[row % count]) for row, each in enumerate(given)])
    single = 0.0
    for at, name in enumerate(names):
        single += ours.seconds_of([(each, new, name) for each in given[at::count]])
    for name in names:
        ours.engine.unload(name)
    tokens = rows * new
    return {"base": tokens / base, "mixed": tokens / mixed, "one after another": tokens / single}


def wake(ours: Ours) -> Found:
    """Seconds to wake beside those of the load, and whether answers are what they were."""
    asked = prompts(70, 1, 16, 256)[0]
    before = ours.submit(asked, 4)
    ours.run(before)
    ours.engine.sleep(MODEL)
    synchronize(ours.device)
    began = time.perf_counter()
    ours.engine.wake(MODEL, lambda *_given, **_named: None)
    synchronize(ours.device)
    took = time.perf_counter() - began
    after = ours.submit(asked, 4)
    ours.run(after)
    bytes = sum(row.allocator for row in ours.engine.memory() if row.what == "weights")
    return {
        "load_seconds": ours.load_seconds, "wake_seconds": took, "bytes": bytes, "same": before.tokens == after.tokens,
    }  # fmt: skip
