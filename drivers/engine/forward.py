"""The forward runner (rung F): encoders, classifiers and all that answers in one pass, in batches of like length."""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmos.syscalls.errors import BadArgument, LlmosError

from ..contract import ChoiceResult, DoneEvent, FailedEvent, Request, StepEvent, Usage
from . import turns
from .batching import LIMITS, BatchLimits, choose
from .memory import out_of_memory
from .pace import Pace
from .runner import Conversation, Forgetful
from .shared import SharedModule
from .tasks.base import ForwardTask, Job, Line

STEP_SECONDS = 0.2
"""How long a batch should take at most; others wait for their turn as long."""


@dataclass(eq=False)
class Pending:
    """A request with the outputs of its lines so far."""

    request: Request
    task: ForwardTask
    job: Job
    adapter: str
    outputs: list[Any]
    left: int
    device_ns: int = 0

    @property
    def usage(self) -> Usage:
        """What it took so far."""
        through = sum(line.length for line, out in zip(self.job.lines, self.outputs, strict=True) if out is not None)
        return Usage(self.device_ns, through)


@dataclass(eq=False)
class Slot:
    """One line that waits; `place` says when it has its turn."""

    pending: Pending
    index: int
    line: Line
    group: Hashable
    place: turns.Place

    @property
    def length(self) -> int:
        return self.line.length

    def isolate(self) -> None:
        """Share no batch from now on."""
        self.group = object()


class ForwardRunner(Forgetful):
    """Serves the tasks it is given on one module. Lines of different requests share batches; errors do not."""

    def __init__(
        self, shared: SharedModule, tasks: Sequence[ForwardTask], pace: Pace, limits: BatchLimits = LIMITS
    ) -> None:
        self.rung = "F"
        self._tasks = {task.name: task for task in tasks}
        self.tasks: Sequence[str] = tuple(self._tasks)
        self._shared, self._pace, self._limits = shared, pace, limits
        self._pending: list[Pending] = []
        self._waiting: list[Slot] = []
        self._classes = turns.Classes()

    @property
    def busy(self) -> bool:
        return bool(self._pending)

    def submit(self, request: Request, conversation: Conversation | None = None, adapter: str = "") -> None:
        """Accept a request. Raises BadArgument, TooLarge, NotSupported."""
        if conversation is not None:
            said = f"the task {request.task} takes no conversation"
            raise BadArgument(said, name="context", got=conversation.id, want="none")
        task = self._tasks[request.task]
        job = task.prepare(request)
        pending = Pending(request, task, job, adapter, [None] * len(job.lines), len(job.lines))
        self._pending.append(pending)
        place = turns.place(request, time.monotonic())
        for index, line in enumerate(job.lines):
            slot = Slot(pending, index, line, (task.name, adapter, line.shape), place)
            insort(self._waiting, slot, key=lambda each: each.place)

    def cancel(self, requests: Collection[str]) -> list[StepEvent]:
        """End requests, without an answer; an empty choice says why."""
        ended = [pending for pending in self._pending if pending.request.id in requests]
        self._drop(ended)
        choice = (ChoiceResult(0, "", (), "cancelled"),)
        return [DoneEvent(each.request.id, each.request.task, choice, prompt_tokens=each.job.tokens) for each in ended]

    def step(self) -> list[StepEvent]:
        """Run one batch. When it fails, its lines are tried one by one; the error of one ends its request alone."""
        events = self._late()
        slots = self._next()
        return events + self._run(slots) if slots else events

    def _late(self) -> list[StepEvent]:
        """End what has passed its deadline."""
        now = time.monotonic()
        gone = [(pending, event) for pending in self._pending if (event := turns.late(pending.request, now))]
        if gone:
            self._drop([pending for pending, _ in gone])
        return [event for _, event in gone]

    def _run(self, slots: Sequence[Slot]) -> list[StepEvent]:
        pending, started = slots[0].pending, time.perf_counter()
        present = {slot.place[0] for slot in self._waiting}
        try:
            outputs = pending.task.run(self._shared.use(pending.adapter), [slot.line for slot in slots])
        except (LlmosError, ValueError, RuntimeError, MemoryError) as error:
            return self._failed(slots, _explained(error, pending.request.task))
        finally:
            self._classes.spent(present, slots[0].place[0], time.perf_counter() - started)
        seconds = time.perf_counter() - started
        self._pace.observe(_tokens(slots), seconds)
        return self._took(slots, outputs, seconds)

    def set_budget(self, budget: Mapping[str, float]) -> None:
        self._classes.set(budget)

    def preempt(self, request: str) -> bool:
        mine = [slot for slot in self._waiting if slot.pending.request.id == request]
        for slot in mine:
            slot.place = turns.place(slot.pending.request, time.monotonic())
        self._waiting.sort(key=lambda each: each.place)
        return bool(mine)

    def step_seconds(self) -> float:
        slots = self._next()
        return self._pace.seconds(_tokens(slots)) if slots else 0.0

    def requests(self) -> Sequence[Request]:
        return [pending.request for pending in self._pending]

    def usage(self) -> Mapping[str, Usage]:
        return {pending.request.id: pending.usage for pending in self._pending}

    def close(self) -> None:
        self._pending.clear()
        self._waiting.clear()

    def _next(self) -> list[Slot]:
        """The next batch, of the class whose turn it is: not more tokens than the task allows, nor than go through in
        a step's time."""
        if not self._waiting:
            return []
        rank = self._classes.next({slot.place[0] for slot in self._waiting})
        waiting = [slot for slot in self._waiting if slot.place[0] == rank]
        tokens = int(STEP_SECONDS / max(self._pace.seconds(2) / 2, 1e-9))
        most = min(tokens, self._limits.tokens, waiting[0].pending.task.batch_tokens)
        return [waiting[index] for index in choose(waiting, replace(self._limits, tokens=most))]

    def _took(self, slots: Sequence[Slot], outputs: Sequence[Any], seconds: float) -> list[StepEvent]:
        done = set(map(id, slots))
        self._waiting = [slot for slot in self._waiting if id(slot) not in done]
        total = sum(slot.length for slot in slots)
        ready = []
        for slot, output in zip(slots, outputs, strict=True):
            pending = slot.pending
            pending.outputs[slot.index] = output
            pending.device_ns += int(1e9 * seconds * slot.length / max(total, 1))
            pending.left -= 1
            if not pending.left:
                ready.append(pending)
        self._drop(ready)
        return [_answered(pending) for pending in ready]

    def _failed(self, slots: Sequence[Slot], error: LlmosError) -> list[StepEvent]:
        if len(slots) > 1:
            for slot in slots:
                slot.isolate()
            return []
        self._drop([slots[0].pending])
        return [FailedEvent(slots[0].pending.request.id, error, device_ns=slots[0].pending.device_ns)]

    def _drop(self, ended: Sequence[Pending]) -> None:
        self._pending = [pending for pending in self._pending if pending not in ended]
        self._waiting = [slot for slot in self._waiting if slot.pending not in ended]


def _tokens(slots: Sequence[Slot]) -> int:
    """Tokens of a batch with its padding."""
    return len(slots) * max(slot.length for slot in slots)


def _answered(pending: Pending) -> StepEvent:
    request = pending.request
    try:
        outcome = pending.job.answer(pending.outputs)
    except LlmosError as error:
        return FailedEvent(request.id, error)
    return DoneEvent(
        request.id, request.task, result=outcome.result, embeddings=outcome.embeddings, tensors=outcome.tensors,
        truncated=outcome.truncated, prompt_tokens=pending.job.tokens, device_ns=pending.device_ns,
    )  # fmt: skip


def _explained(error: Exception, task: str) -> LlmosError:
    """What to answer for an error of a batch. One that no input explains is raised again: the device is at fault."""
    full = out_of_memory(error)
    if full is not None:
        return full
    if isinstance(error, LlmosError):
        return error
    if isinstance(error, ValueError):
        said = str(error).partition("\n")[0][:300]
        return BadArgument(f"the model refuses this input of {task}: {said}", name="input", got=said)
    raise error
