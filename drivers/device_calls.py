"""The kernel's calls to a device, carried out on a `contract.Device`.

Keeps what the driver need not know: which request belongs to which call, that each gets exactly one terminal answer,
and under which id of its own the device knows a model (a swap loads the new version beside the old one, so a version
that does not load costs nothing).
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from llmos.syscalls.driver import (
    ContextOpened, Fault, HostAdapter, HostDropContext, HostEndLease, HostInspect, HostLease, HostLoad, HostOpenContext,
    HostPlan, HostPreempt, HostSetBudget, HostSetShares, HostSleep, HostSubmit, HostSwap, HostTransform, HostTune,
    HostUnload, HostWake, Inspected, Loaded, Located, Memory, MetricEvent, PlanRows, Ready, Stats,
)  # fmt: skip
from llmos.syscalls.errors import (
    BadArgument, BadState, Busy, Cancelled, Exists, LlmosError, NotFound, NotSupported, PeerGone, TooLarge,
)  # fmt: skip
from llmos.syscalls.events import CACHE_USAGE
from llmos.syscalls.spec import Call
from llmos.syscalls.types import Chunk, Freed, LedgerRow, LoadOptions
from llmos.syscalls.wire import Progress

from . import contract, convert, leases
from .buffers import Buffers
from .held import Counters, Held, Limits, Running, bytes_of
from .metering import Metering
from .orders import Orders
from .outgoing import Outgoing
from .pulse import Pulse
from .tuning_calls import TuningCalls

_READ_BYTES_PER_S = 25e6
"""Slower than any disk worth using: what a load is allowed for each byte."""
_PROGRESS_S = 0.1
_KEPT_CANCELS = 1024


class DeviceCalls:
    """Serves one device. All methods but `cancel` and `stats` belong to the work thread."""

    STARTS_WORK: ClassVar[tuple[type[Call[Any]], ...]] = (
        HostSubmit, HostLoad, HostSwap, HostWake, HostOpenContext, HostPlan, HostLease, HostTune,
    )  # fmt: skip
    """Refused while draining."""
    CHANGES_MEMORY: ClassVar[tuple[type[Call[Any]], ...]] = (
        HostLoad, HostUnload, HostSleep, HostWake, HostSwap, HostAdapter, HostOpenContext, HostDropContext, HostLease,
        HostEndLease, HostTune,
    )  # fmt: skip
    LONG: ClassVar[tuple[type[Call[Any]], ...]] = (
        HostPlan, HostLoad, HostUnload, HostSleep, HostWake, HostSwap, HostAdapter, HostInspect, HostLease, HostTune,
    )  # fmt: skip
    """May take long enough for control calls to need a thread of their own."""

    def __init__(
        self, device: contract.Device, facts: contract.Facts, out: Outgoing, pulse: Pulse, limits: Limits
    ) -> None:
        self.ending = False
        """Set when the process was asked to end: long work then stops at its next progress report."""
        self._device = device
        self._facts = facts
        self._out = out
        self._pulse = pulse
        self._limits = limits
        self._models: dict[str, Held] = {}
        self._leaving: list[Held] = []
        self._running: dict[str, Running] = {}
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._keys = itertools.count(2)
        self._buffers = Buffers()
        self._count = Counters()
        self._metering = Metering()
        self._orders = Orders(device, self._versions, self._running.__contains__)
        self._tunes = TuningCalls(device, facts.name, out, self._model)
        self._reported: list[LedgerRow] = []
        self._handlers: Mapping[type[Call[Any]], Callable[[int, Any], Any]] = {
            HostPlan: self._plan,
            HostLoad: self._load,
            HostUnload: self._unload,
            HostSleep: self._sleep,
            HostWake: self._wake,
            HostSwap: self._swap,
            HostAdapter: self._adapter,
            HostSubmit: self._submit,
            HostOpenContext: self._open_context,
            HostDropContext: lambda _number, call: Freed(bytes=self._device.drop_context(call.id)),
            HostInspect: lambda _number, call: Inspected(fields=dict(self._device.inspect(call.topic))),
            HostSetShares: self._orders.set_shares,
            HostSetBudget: self._orders.set_budget,
            HostPreempt: self._orders.preempt,
            **leases.handlers(device),
            **self._tunes.handlers,
            HostTransform: self._not_supported,
        }

    @property
    def handlers(self) -> Mapping[type[Call[Any]], Callable[[int, Any], Any]]:
        """What to do for each call: called with the call's number; None means that the answer comes later."""
        return self._handlers

    @property
    def busy(self) -> bool:
        return bool(self._running) or self._tunes.busy

    @property
    def pause(self) -> float:
        """Seconds until the next step: others want the hardware too."""
        return self._orders.pacing.wait(time.monotonic())

    def ready(self, memory_limit: int) -> Ready:
        return Ready(devices=[convert.from_facts(self._facts, memory_limit)])

    def limit(self, call: Call[Any]) -> float:
        """Seconds this call may take."""
        if isinstance(call, HostLoad | HostSwap | HostPlan):
            return self._limits.load + bytes_of(call.model) / _READ_BYTES_PER_S
        if isinstance(call, HostWake | HostSleep | HostUnload):
            held = self._models.get(call.id)
            return self._limits.load + (held.bytes if held else 0) / _READ_BYTES_PER_S
        if isinstance(call, HostAdapter | HostInspect | HostLease | HostTune):
            return self._limits.load
        return max(self._limits.step, 10 * self._device.step_seconds())

    def step_seconds(self) -> float:
        """How long the next step will take, as the device predicts."""
        return self._device.step_seconds()

    # ---- the I/O thread's

    def cancel(self, request: str) -> None:
        """Noted first and looked up second, while `_submit` does the opposite: one of the two sees the other."""
        if not self._tunes.cancel(request):
            self._cancelled[request] = None
        if request in self._running:
            self._device.cancel(request)

    def stats(self) -> Stats:
        return Stats(memory=self._reported, values=self._values())

    # ---- steps

    def step(self) -> None:
        """Advance what runs and say what came of it."""
        chunks: list[tuple[int, Chunk]] = []
        ended: list[Callable[[], None]] = []
        began = time.monotonic()
        events = self._tunes.told(self._device.step())
        self._orders.pacing.stepped(began, time.monotonic())
        self._pulse.steps += 1
        for event in events:
            running = self._running.get(event.request)
            if running is None:
                text = f"the driver answered request {event.request!r}, which does not run"
                self._out.event(Fault(text=text, sticky=False))
            elif isinstance(event, contract.ChunkEvent):
                running.tokens += len(event.tokens)
                if running.stream:
                    chunks.append((running.number, convert.from_chunk(event)))
            else:
                del self._running[event.request]
                self._cancelled.pop(event.request, None)
                ended.append(self._finisher(running, event))
        if chunks:
            self._out.chunks(chunks)
        for finish in ended:
            finish()
        self._end_orphans()
        if self._metering.due():
            for spent in self._metering.report(self._device.usage()):
                self._out.event(spent)

    def _finisher(self, running: Running, event: contract.DoneEvent | contract.FailedEvent) -> Callable[[], None]:
        if isinstance(event, contract.FailedEvent):
            failed = event
            return lambda: self._failed(running, failed)
        done = event
        return lambda: self._done(running, done)

    def _failed(self, running: Running, event: contract.FailedEvent) -> None:
        self._ended(event.request, event.device_ns, 0)
        if event.overrun is not None:
            model = next((id for id, held in self._models.items() if held is running.held), running.held.key)
            self._out.event(convert.from_overrun(event.overrun, model, event.request))
        self._out.error(running.number, event.error)

    def _done(self, running: Running, event: contract.DoneEvent) -> None:
        self._ended(event.request, event.device_ns, event.prompt_tokens - event.cached_tokens + event.new_tokens)
        self._count.tokens += event.new_tokens
        try:
            self._out.end(running.number, convert.from_done(event, running.held.version))
        except TooLarge as error:
            self._out.error(running.number, error)

    def _ended(self, request: str, device_ns: int, tokens: int) -> None:
        """Tell what a request took, before its answer: whoever hears of its end finds the accounts up to date."""
        self._count.device_ns += device_ns
        spent = self._metering.end(request, device_ns, tokens)
        if spent is not None:
            self._out.event(spent)

    def _end_orphans(self) -> None:
        """Answer requests whose model is gone, and let go of versions that were replaced and are no longer used."""
        present = {id(held) for held in (*self._models.values(), *self._leaving)}
        for request, running in list(self._running.items()):
            if id(running.held) not in present:
                del self._running[request]
                self._metering.forget(request)
                gone = BadState("the model was unloaded while the request ran", state="unloaded")
                self._out.error(running.number, gone)
        used = {id(running.held) for running in self._running.values()}
        for held in [held for held in self._leaving if id(held) not in used]:
            self._leaving.remove(held)
            self._device.unload(held.key)

    # ---- what the kernel should know

    def memory(self) -> Memory | None:
        """The device's rows, if they changed since they were reported last."""
        rows = self._rows(self._device.memory())
        if rows == self._reported:
            return None
        self._reported = rows
        return Memory(device=self._facts.name, rows=rows, foreign_bytes=self._device.facts().foreign_bytes)

    def metrics(self) -> list[MetricEvent]:
        """Figures of the device, and how full the cache of each model is."""
        usage = self._device.cache_usage()
        return [
            MetricEvent(about=self._facts.name, values=self._values()),
            *(
                MetricEvent(about=model, values={CACHE_USAGE: usage[held.key]})
                for model, held in self._models.items()
                if held.key in usage
            ),
        ]

    def idle(self) -> None:
        """A second passed without work."""
        self._buffers.prune()

    def close(self) -> None:
        """End everything: what runs is answered, the device gives back what it holds."""
        for running in self._running.values():
            gone = PeerGone("the driver was stopped while it ran this", tokens_done=running.tokens)
            self._out.error(running.number, gone)
        self._running.clear()
        self._device.stop()

    def _values(self) -> dict[str, float]:
        return {
            "steps": self._pulse.steps,
            "requests": self._count.requests,
            "running": len(self._running),
            "tokens": self._count.tokens,
            "device_seconds": self._count.device_ns / 1e9,
            "models": len(self._models),
        }

    def _rows(self, rows: Sequence[contract.Row]) -> list[LedgerRow]:
        owners = {held.key: model for model, held in self._models.items()}
        return convert.from_rows(self._facts.name, rows, owners)

    # ---- models

    def _plan(self, _number: int, call: HostPlan) -> PlanRows:
        rows = self._device.plan(convert.to_source(call.model), convert.to_settings(call.options))
        return PlanRows(rows=self._rows(rows))

    def _load(self, number: int, call: HostLoad) -> Loaded:
        if call.id in self._models:
            raise Exists(f"a model {call.id} is loaded already")
        base = self._model(call.base).key if call.base else ""
        held = self._bring(number, call.id, call.id, call.model, call.options, base)
        held.base = call.base
        self._models[call.id] = held
        return self._loaded(held)

    def _bring(self, number: int, model: str, key: str, located: Located, options: LoadOptions, base: str) -> Held:
        source = convert.to_source(located)
        try:
            loaded = self._device.load(key, source, convert.to_settings(options), self._sink(number, model), base)
        finally:
            self._cancelled.pop(model, None)
        return Held(key, located.version, bytes_of(located), loaded)

    def _sink(self, number: int, model: str) -> contract.ProgressSink:
        last = ("", float("-inf"))

        def progress(done: int, total: int, unit: str = "bytes", stage: str = "") -> None:
            nonlocal last
            self._pulse.alive()
            if self.ending or model in self._cancelled:
                raise Cancelled(f"loading {model} was cancelled at {done} of {total} {unit}")
            now = time.monotonic()
            if stage != last[0] or done == total or now - last[1] >= _PROGRESS_S:
                last = stage, now
                self._out.progress(number, Progress(done=done, total=total, unit=unit, stage=stage))
                self._out.flush()

        return progress

    def _unload(self, _number: int, call: HostUnload) -> Freed:
        freed = self._device.unload(self._model(call.id).key)
        del self._models[call.id]
        return Freed(bytes=freed)

    def _sleep(self, _number: int, call: HostSleep) -> Loaded:
        held = self._model(call.id)
        held.loaded = self._device.sleep(held.key, call.host_bytes)
        return self._loaded(held)

    def _wake(self, number: int, call: HostWake) -> Loaded:
        held = self._model(call.id)
        try:
            held.loaded = self._device.wake(held.key, self._sink(number, call.id))
        finally:
            self._cancelled.pop(call.id, None)
        return self._loaded(held)

    def _swap(self, number: int, call: HostSwap) -> Loaded:
        old = self._model(call.id)
        adapters = [model for model, held in self._models.items() if held.base == call.id]
        if adapters:
            raise Busy(f"model {call.id} has adapters: {', '.join(adapters)}; unload them before it is swapped")
        key = f"{call.id}~{next(self._keys)}"
        self._models[call.id] = held = self._bring(number, call.id, key, call.model, call.options, "")
        self._leaving.append(old)
        self._end_orphans()
        return self._loaded(held)

    def _adapter(self, number: int, call: HostAdapter) -> Loaded:
        base = self._model(call.base)
        if call.action == "drop":
            self._device.unload(self._model(call.id).key)
            del self._models[call.id]
            return self._loaded(base)
        if call.action != "add" or call.model is None:
            text = f"adapter: action is {call.action!r}; expected add (with a model) or drop"
            raise BadArgument(text, name="action", got=call.action)
        return self._load(number, HostLoad(id=call.id, model=call.model, base=call.base))

    def _loaded(self, held: Held) -> Loaded:
        owners = {held.key: model for model, held in self._models.items()}
        return convert.from_loaded(self._facts.name, held.loaded, owners)

    def _versions(self) -> list[tuple[str, Held]]:
        """All that the device has of models by their ids, with versions that were replaced and are still used."""
        leaving = [(held.key.partition("~")[0], held) for held in self._leaving]
        return [*self._models.items(), *leaving]

    def _model(self, model: str) -> Held:
        try:
            return self._models[model]
        except KeyError:
            raise NotFound(f"model {model} is not on {self._facts.name}") from None

    # ---- requests and contexts

    def _submit(self, number: int, call: HostSubmit) -> None:
        work = call.work
        held = self._model(work.model)
        if work.id in self._running:
            raise Exists(f"a request {work.id} runs already")
        if self._cancelled.pop(work.id, work) is None:
            raise Cancelled(f"request {work.id} was cancelled before it started")
        while len(self._cancelled) > _KEPT_CANCELS:
            self._cancelled.popitem(last=False)
        takes = [kind for kind in ("tensors", "parts") if self._facts.features.get(kind)]
        request = replace(
            convert.to_request(work, held.key, self._buffers, takes=takes),
            work_class=call.work_class.value, priority=call.priority,
            deadline=None if call.deadline is None else call.deadline / 1e9,
        )  # fmt: skip
        self._running[work.id] = Running(number, held, work.stream)
        self._metering.begin(work.id, work.model, call.work_class.value, work.tenant)
        try:
            self._device.submit(request)
        except LlmosError:
            del self._running[work.id]
            self._metering.forget(work.id)
            raise
        self._count.requests += 1
        if work.id in self._cancelled:
            self._device.cancel(work.id)

    def _open_context(self, _number: int, call: HostOpenContext) -> ContextOpened:
        held = self._model(call.model)
        opened = self._device.open_context(call.id, held.key, call.parent, call.max_tokens)
        return ContextOpened(tokens=opened.tokens, max_tokens=opened.max_tokens, bytes=opened.bytes)

    def _not_supported(self, _number: int, call: Call[Any]) -> None:
        name = type(call).__name__.removeprefix("Host").lower()
        raise NotSupported(f"{self._facts.name} has no {name}", why="drivers cannot offer it yet")
