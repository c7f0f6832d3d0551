"""The null device: a complete driver without hardware. Its models echo the prompt, its faults are on order.

A model is any folder, with weights or without: `null.bytes` of the manifest says how large it pretends to be, else its
files do. Tokens are UTF-8 bytes, 256 ends a text. Each next token of the prompt has probability one, so temperature,
filters and penalties change nothing; `n` gives equal choices. Tensors come back: small ones as they are, all with a
CRC-32 (`NAME.crc32`); the task `copy` moves them into the device's memory and answers with the number of bytes, which
measures the way there, and `touch` reads one byte of each page in place. Faults: `null_faults`.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from llmos.drivers import sampling
from llmos.drivers.contract import (
    Device, DoneEvent, EmbedSettings, Facts, FailedEvent, Leased, LoadedModel, LoadSettings, ModelSource,
    OpenedContext, Overrun, ProgressSink, Request, Row, StepEvent, TuneEvent, Usage,
)  # fmt: skip
from llmos.drivers.hookspecs import Send, hookimpl
from llmos.syscalls.errors import (
    BadArgument, BadState, DeviceFault, Exists, LlmosError, NoDeviceMemory, NotFound, NotSupported, TooLarge,
)  # fmt: skip

from . import null_faults
from .null_faults import Fault, Tamper
from .null_model import (
    SAMPLING, TASKS, Echo, NullContext, NullJob, NullModel, TensorMover, check_embedding, embed, prompt_ids,
    prompt_text, task_of,
)  # fmt: skip
from .null_tuning import NullTuner
from .null_turns import NullTurns
from .shared_files import SharedFiles

MEMORY_BYTES = 1 << 30
MODEL_BYTES = 1 << 20
CONTEXT_TOKENS = 4096
"""Room of a conversation that asks for none with a model that states no limit."""
DTYPES = ("auto", "float32", "bfloat16", "float16")
KV_BYTES = 1024
"""Bytes a token of a conversation is said to take."""


class NullDevice(NullTuner):
    """See the module. Thread-safe as far as the contract asks: `cancel` only sets a flag."""

    name = "null0"
    config_keys: ClassVar[Mapping[str, str]] = {
        "faults": "faults on order, a list of texts (see docs/drivers.md)",
        "once": "a file: the faults of the configuration happen only while it does not exist, and make it",
        "memory_bytes": "size of the device's pretended memory",
        "oom_after": "bytes after which it has no memory left, although it claims more",
        "slots": "how many requests it runs at once",
    }

    def __init__(self) -> None:
        super().__init__()
        self.tamper = Tamper()
        self._device = self.name
        self._config: Mapping[str, Any] = {}
        self._faults: list[Fault] = []
        self._models: dict[str, NullModel] = {}
        self._contexts: dict[str, NullContext] = {}
        self._jobs: dict[str, NullJob] = {}
        self._mover = TensorMover()
        self._turns = NullTurns()
        self._files = SharedFiles()
        self._steps = 0
        self._said: list[StepEvent | TuneEvent] = []

    # ---- the device

    def start(self, name: str, threads: int, config: Mapping[str, Any]) -> None:
        self._device = name
        for key in ("memory_bytes", "oom_after", "slots"):
            if not isinstance(config.get(key, 1), int) or config.get(key, 1) < 1:
                raise BadArgument(f"{key} is {config[key]!r}; expected an integer of 1 or more", name=key)
        self._config = config
        self._faults = [null_faults.parse(text, "start") for text in config.get("faults", ())]
        self._happen(self._configured("start"))

    def facts(self) -> Facts:
        memory = int(self._config.get("memory_bytes", MEMORY_BYTES))
        features = dict.fromkeys(("tensors", "adapters", "contexts", "parks", "tunes"), 1)
        return Facts(self._device, "null", memory, description="no hardware: echoes", features=features)

    def memory(self) -> Sequence[Row]:
        rows = [_row("weights", name, model.bytes) for name, model in self._models.items() if model.awake]
        kv = [_row("kv", name, context.max_tokens * KV_BYTES) for name, context in self._contexts.items()]
        return [*rows, *kv, *self.tuning_rows(), *self._files.rows()]

    def cache_usage(self) -> Mapping[str, float]:
        """It has no pages: the share of its slots that are taken."""
        taken = Counter(job.request.model for job in self._jobs.values())
        return {name: taken[name] / model.slots for name, model in self._models.items() if model.awake}

    def usage(self) -> Mapping[str, Usage]:
        return {name: Usage(job.device_ns, job.steps) for name, job in self._jobs.items()}

    def step_seconds(self) -> float:
        slow = null_faults.step_seconds([f for job in self._jobs.values() for f in job.faults] + self._faults)
        return max(0.001, slow)

    def stop(self) -> None:
        self._files.close()
        self._models.clear()
        self._contexts.clear()
        self._jobs.clear()

    # ---- models

    def plan(self, source: ModelSource, settings: LoadSettings) -> Sequence[Row]:
        return [Row("weights", source.path, predicted=_model_bytes(source))]

    def load(
        self, model: str, source: ModelSource, settings: LoadSettings, progress: ProgressSink, base: str = ""
    ) -> LoadedModel:
        if model in self._models:
            raise Exists(f"a model {model} is loaded already")
        _check_settings(settings)
        if base:
            self._model(base)
        size = _model_bytes(source)
        faults = [null_faults.parse(text, "load") for text in source.manifest.get("null", {}).get("faults", ())]
        self._make_room(size)
        progress(0, size, "bytes", "weights")
        self._happen([*self._configured("load"), *null_faults.at(faults, "load")])
        for quarter in range(1, 5):
            progress(size * quarter // 4, size, "bytes", "weights")
        context = settings.max_context or int(source.manifest.get("context") or 0)
        slots = int(self._config.get("slots", 8))
        self._models[model] = NullModel(size, context, slots, faults, base)
        return self._loaded(model)

    def unload(self, model: str) -> int:
        freed = self._model(model)
        del self._models[model]
        kv = 0
        for name in [name for name, context in self._contexts.items() if context.model == model]:
            kv += self.drop_context(name)
        for job in self._jobs.values():
            job.cancelled = job.cancelled or job.request.model == model
        self._said += self.end_tunings(model)
        return kv + (freed.bytes if freed.awake else 0)

    def sleep(self, model: str, host_bytes: int | None = None) -> LoadedModel:
        held = self._model(model)
        if not held.awake:
            raise BadState(f"model {model} sleeps already", state="asleep")
        held.awake = False
        contexts = [name for name, context in self._contexts.items() if context.model == model]
        return replace(self._loaded(model), contexts=contexts)

    def wake(self, model: str, progress: ProgressSink) -> LoadedModel:
        held = self._model(model)
        if held.awake:
            raise BadState(f"model {model} is awake", state="awake")
        self._make_room(held.bytes)
        progress(held.bytes, held.bytes, "bytes", "weights")
        held.awake = True
        return self._loaded(model)

    # ---- conversations

    def open_context(self, context: str, model: str, parent: str, max_tokens: int) -> OpenedContext:
        held = self._model(model)
        if context in self._contexts:
            raise Exists(f"a context {context} is open already")
        ids: list[int] = []
        if parent:
            source = self._context(parent)
            if source.model != model:
                raise BadState(f"context {parent} belongs to model {source.model}, not {model}", state="foreign")
            ids = list(source.ids)
        size = min(max_tokens or held.context or CONTEXT_TOKENS, held.context or sys.maxsize)
        if len(ids) > size:
            raise BadState(f"context {parent} has {len(ids)} tokens, more than {size}", state="full")
        self._make_room(size * KV_BYTES)
        self._contexts[context] = NullContext(model, size, ids)
        return OpenedContext(len(ids), size, size * KV_BYTES)

    def drop_context(self, context: str) -> int:
        size = self._context(context).max_tokens * KV_BYTES
        del self._contexts[context]
        return size

    def lease(self, lease: str, bytes: int, path: str) -> Leased:
        self._make_room(bytes)
        return self._files.give(lease, bytes, path)

    def end_lease(self, lease: str) -> int:
        return self._files.end(lease)

    # ---- requests

    def submit(self, request: Request) -> None:
        model = self._model(request.model)
        if not model.awake:
            raise BadState(f"model {request.model} sleeps: wake it first", state="asleep")
        if request.id in self._jobs:
            raise Exists(f"a request {request.id} runs already")
        sampling.check(request.sampling, SAMPLING)
        job = self._accept(request, model)
        self._happen([*self._configured("submit"), *null_faults.at(job.faults, "submit")])
        self._jobs[request.id] = job

    def _accept(self, request: Request, model: NullModel) -> NullJob:
        task = task_of(request)
        if request.prompt.tensors is not None:
            return NullJob(request, task, list(model.faults), [], 0, None, time.monotonic())
        faults, text = null_faults.split_prompt(prompt_text(request.prompt))
        ids = prompt_ids(request.prompt, text)
        limit = model.context or sys.maxsize
        cached = 0
        if request.context:
            context = self._context(request.context)
            if context.model != request.model:
                raise BadState(f"context {request.context} belongs to model {context.model}", state="foreign")
            cached, limit = len(context.ids), context.max_tokens
        embeds = task == "feature-extraction"
        embedding = request.embed or EmbedSettings()
        check_embedding(embedding)
        truncates = embeds and embedding.max_tokens is not None
        if cached + len(ids) > limit and not truncates:
            tokens = cached + len(ids)
            raise TooLarge(f"the prompt has {tokens} tokens, {limit} fit; shorten it", limit=limit, got=tokens)
        echo = None if embeds else Echo(ids, request.sampling, room=limit - cached - len(ids), stream=request.stream)
        return NullJob(request, task, [*model.faults, *faults], ids, cached, echo, time.monotonic())

    def set_shares(self, shares: Mapping[str, float]) -> None:
        """All its models go on in each step, so there is nothing to divide."""

    def set_budget(self, budget: Mapping[str, float]) -> None:
        self._turns.set_budget(budget)

    def preempt(self, request: str) -> None:
        if request not in self._jobs:
            raise NotFound(f"no request {request} runs on {self._device}")
        self._jobs[request] = self._jobs.pop(request)

    def cancel(self, request: str) -> None:
        job = self._jobs.get(request)
        if job is not None:
            job.cancelled = True
        self.cancel_tune(request)

    def step(self) -> Sequence[StepEvent | TuneEvent]:
        self._steps += 1
        if self._jobs:
            self._happen(self._configured("step"))
        events, self._said = [*self._said, *self.tune_on()], []
        slots = {name: model.slots for name, model in self._models.items()}
        going_on = self._turns.choose([job.request for job in self._jobs.values()], slots)
        for job in [job for job in self._jobs.values() if job.cancelled or job.request.id in going_on]:
            began = time.perf_counter_ns()
            try:
                events += self._advance(job, began)
            except DeviceFault:
                raise
            except LlmosError as error:
                del self._jobs[job.request.id]
                short = Overrun(0, error.needed) if isinstance(error, NoDeviceMemory) else None
                events.append(FailedEvent(job.request.id, error, short))
        return events

    def _advance(self, job: NullJob, began: int) -> Sequence[StepEvent]:
        if job.waits:
            time.sleep(0.001)
            return []
        job.steps += 1
        self._happen([f for f in job.faults if f.moment == "step" and _due(f, job.steps)])
        chunks: list[StepEvent] = []
        if job.echo is not None:
            if job.cancelled:
                chunks += job.echo.cancel(job.request.id)
            elif not job.echo.done:
                chunks += job.echo.advance(job.request.id)
            job.device_ns += time.perf_counter_ns() - began
            if not job.echo.done:
                return chunks
        return [*chunks, self._finish(job)]

    def _finish(self, job: NullJob) -> DoneEvent:
        began = time.perf_counter_ns()
        request = job.request
        del self._jobs[request.id]
        for fault in job.faults:
            if fault.what == "garbage":
                self.tamper.order(fault.argument)
        fields: dict[str, Any] = {}
        if job.echo is not None:
            fields["choices"] = job.echo.choices()
            fields["new_tokens"] = sum(len(choice.tokens) for choice in fields["choices"])
            if request.context in self._contexts:
                self._contexts[request.context].ids += [*job.ids, *fields["choices"][0].tokens]
        elif request.prompt.tensors is not None:
            fields["tensors"] = self._mover.run(job.task, request.prompt.tensors)
        else:
            fields["embeddings"], fields["truncated"] = embed(job.ids, request.embed or EmbedSettings())
        return DoneEvent(
            request.id,
            job.task,
            prompt_tokens=job.cached + len(job.ids),
            cached_tokens=job.cached,
            device_ns=job.device_ns + time.perf_counter_ns() - began,
            **fields,
        )

    # ---- helpers

    def _configured(self, moment: str) -> list[Fault]:
        """Faults of the configuration that are due now."""
        number = self._steps if moment == "step" else 1
        due = [fault for fault in self._faults if fault.moment == moment and _due(fault, number)]
        marker = self._config.get("once")
        return due if not due or not marker or null_faults.first_time(marker) else []

    def _happen(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            null_faults.perform(fault)

    def take_room(self, model: str, size: int) -> None:
        if not self._model(model).awake:
            raise BadState(f"model {model} sleeps: wake it first", state="asleep")
        self._make_room(size)

    def _make_room(self, size: int) -> None:
        limit = min(self.facts().memory_bytes, int(self._config.get("oom_after", MEMORY_BYTES)))
        used = sum(row.allocator for row in self.memory())
        if used + size > limit:
            holders = ", ".join(row.owner for row in self.memory())
            raise NoDeviceMemory(
                f"{size} bytes are needed, {limit - used} of {limit} are free", needed=size, free=limit - used,
                by_whom=holders,
            )  # fmt: skip

    def _loaded(self, name: str) -> LoadedModel:
        model = self._models[name]
        return LoadedModel(
            architecture="Echo",
            tasks=TASKS,
            context=model.context,
            parameters=model.bytes // 2,
            rows=[row for row in self.memory() if row.owner == name],
            rung="F",
            rung_reasons=["the null device has one runner"],
            chat=True,
            slots=model.slots,
        )

    def _model(self, name: str) -> NullModel:
        try:
            return self._models[name]
        except KeyError:
            raise NotFound(f"no model {name} is loaded on {self._device}") from None

    def _context(self, name: str) -> NullContext:
        try:
            return self._contexts[name]
        except KeyError:
            raise NotFound(f"no context {name} is open on {self._device}") from None


def _due(fault: Fault, number: int) -> bool:
    return fault.number == number or (fault.what == "slow" and fault.number < number)


def _row(what: str, owner: str, size: int) -> Row:
    return Row(what, owner, predicted=size, allocator=size, driver=size)


def _check_settings(settings: LoadSettings) -> None:
    """Raises BadArgument, NotSupported."""
    for name, known in (("dtype", DTYPES), ("kv_dtype", DTYPES), ("rung", ("", "F"))):
        value = getattr(settings, name)
        if value not in known:
            text = f"{name} is {value!r}; expected {', '.join(k for k in known if k)}"
            raise BadArgument(text, name=name, got=value, want=", ".join(known))
    if settings.quant is not None:
        raise NotSupported("the null device has no weights to quantize", why="no weights")


def _model_bytes(source: ModelSource) -> int:
    claimed = source.manifest.get("null", {}).get("bytes")
    return int(claimed) if claimed is not None else max(MODEL_BYTES, sum(file.bytes for file in source.files))


@hookimpl
def register_devices(register: Any) -> None:
    register(NullDevice.name, NullDevice)


@hookimpl
def wrap_send(device: Device, send: Send) -> Send | None:
    return device.tamper.wrap(send) if isinstance(device, NullDevice) else None
