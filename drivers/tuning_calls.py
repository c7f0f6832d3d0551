"""The kernel's calls about tuning, carried out on a `contract.Device`, and what the device tells of its jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llmos.syscalls.driver import (
    HostCheckpoint, HostPause, HostResume, HostTune, TuneEnded, TuneProgress, Tuning,
)  # fmt: skip
from llmos.syscalls.errors import Exists, NotFound
from llmos.syscalls.spec import Call
from llmos.syscalls.types import Done

from . import contract, convert
from .held import Held
from .outgoing import Outgoing


class TuningCalls:
    """The jobs of one device.

    Args:
        device: the device.
        name: its name.
        out: where events go to.
        model: finds a model by the kernel's id of it, or raises NotFound.
    """

    def __init__(self, device: contract.Device, name: str, out: Outgoing, model: Callable[[str], Held]) -> None:
        self._device = device
        self._name = name
        self._out = out
        self._model = model
        self._planned: dict[str, int] = {}
        """Jobs of which the device has not said yet what they would take, and the calls that asked."""
        self._running: set[str] = set()
        self._paused: set[str] = set()
        """Of these, those that want no steps. A name that stays here when its job has ended does no harm."""

    @property
    def handlers(self) -> Mapping[type[Call[Any]], Callable[[int, Any], Any]]:
        return {
            HostTune: self._tune, HostPause: self._pause, HostResume: self._resume, HostCheckpoint: self._checkpoint,
        }  # fmt: skip

    @property
    def busy(self) -> bool:
        """Whether any job wants steps."""
        return bool(self._planned) or not self._running <= self._paused

    def cancel(self, job: str) -> bool:
        """End a job with the next step, also one that is paused; whether there is such a job. Any thread."""
        if job not in self._running:
            return False
        self._device.cancel(job)
        self._paused.discard(job)
        return True

    def told(self, events: Sequence[contract.StepEvent | contract.TuneEvent]) -> list[contract.StepEvent]:
        """Tell the kernel what events say of jobs; those of requests are returned."""
        rest: list[contract.StepEvent] = []
        for event in events:
            if isinstance(event, contract.TuneProgressEvent):
                self._out.event(TuneProgress(
                    id=event.id, step=event.step, steps=event.steps, values=dict(event.values), stage=event.stage,
                    facts=dict(event.facts),
                ))  # fmt: skip
            elif isinstance(event, contract.TunePlannedEvent):
                self._out.reply(self._planned.pop(event.id), self._tuning(event.plan))
            elif isinstance(event, contract.FailedEvent) and event.request in self._planned:
                self._out.error(self._planned.pop(event.request), event.error)
            elif isinstance(event, contract.TuneDoneEvent):
                self._running.discard(event.id)
                self._out.event(TuneEnded(
                    id=event.id, reason=event.reason, values=dict(event.values), manifest=dict(event.manifest)
                ))  # fmt: skip
            elif isinstance(event, contract.FailedEvent) and event.request in self._running:
                self._running.discard(event.request)
                self._out.event(TuneEnded(id=event.request, reason="failed", error=event.error.to_wire()))
            else:
                rest.append(event)
        return rest

    def _tune(self, number: int, call: HostTune) -> Tuning | None:
        if call.id in self._running or call.id in self._planned:
            raise Exists(f"a tuning job {call.id} runs already")
        held = self._model(call.model)
        job = contract.TuneJob(
            id=call.id, model=held.key, recipe=msgspec.to_builtins(call.recipe), data=convert.to_source(call.data),
            folder=Path(call.folder), keep=Path(call.keep), work_class=call.work_class.value, version=held.version,
            base_path=call.base_path, models={name: self._model(id).key for name, id in call.models.items()},
        )  # fmt: skip
        if call.dry_run:
            found = self._device.plan_tune(job)
            if found is None:
                self._planned[call.id] = number
            return None if found is None else self._tuning(found)
        plan = self._device.tune(job)
        self._paused.discard(call.id)
        self._running.add(call.id)
        return self._tuning(plan)

    def _tuning(self, plan: contract.TunePlan) -> Tuning:
        rows = convert.from_rows(self._name, plan.rows, {})
        return Tuning(rows=rows, steps=plan.steps, tokens=plan.tokens, facts=dict(plan.facts))

    def _pause(self, _number: int, call: HostPause) -> Done:
        self._check(call.id)
        self._device.pause_tune(call.id)
        self._paused.add(call.id)
        return Done()

    def _resume(self, _number: int, call: HostResume) -> Done:
        self._check(call.id)
        self._device.resume_tune(call.id)
        self._paused.discard(call.id)
        return Done()

    def _checkpoint(self, _number: int, call: HostCheckpoint) -> Done:
        self._check(call.id)
        self._device.checkpoint_tune(call.id)
        return Done()

    def _check(self, job: str) -> None:
        if job not in self._running:
            raise NotFound(f"no tuning job {job} runs on {self._name}")
