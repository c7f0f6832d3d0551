"""Runs inferences: queued, started when the scheduler says so, repeated once when nothing was delivered, accounted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from llmos.syscalls.driver import BufferFile, HostCancel, HostSubmit, Work
from llmos.syscalls.errors import BadState, LlmosError, PeerGone
from llmos.syscalls.types import (
    BufferRef, Chunk, EmbedOptions, Handle, Inference, Input, Kind, Parts, Right, Sampling, Tensors, Timing,
)  # fmt: skip

from .arbiter.history import weight_of
from .lane import Ticket
from .link import Link
from .objects import BufferObject, ContextObject, ModelObject
from .pending import Future
from .requests import Request
from .speed import Attempt
from .supervisor import DriverState

if TYPE_CHECKING:
    from .core import Kernel


class InferenceService:
    """The path of an inference from the queue to its result."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.turns: dict[str, Future[None]] = {}
        """Requests that wait for the scheduler's start."""

    async def run(
        self,
        request: Request,
        model: ModelObject,
        content: Input,
        task: str,
        sampling: Sampling,
        embed: EmbedOptions | None = None,
        context: ContextObject | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Inference:
        """The whole life of one inference; chunks go to the request when its call streams."""
        kernel = self._kernel
        await kernel.quotas.enter(request)
        try:
            return await self._admitted(request, model, content, task, sampling, embed, context, options)
        finally:
            kernel.quotas.leave(request)

    async def _admitted(
        self,
        request: Request,
        model: ModelObject,
        content: Input,
        task: str,
        sampling: Sampling,
        embed: EmbedOptions | None,
        context: ContextObject | None,
        options: Mapping[str, Any] | None,
    ) -> Inference:
        """What is within its quotas: queued, run, accounted. What the queue refuses has cost next to nothing so far,
        and counts as no use of the model."""
        kernel = self._kernel
        files = self._buffers(request, content)
        model.requests += 1
        self._submit(request, model)
        weight = weight_of(request.call.work_class, request.call.priority)
        kernel.residency.used(model.id, kernel.runner.clock(), weight)
        work = Work(
            id=request.id,
            model="",
            input=content,
            task=task,
            sampling=sampling,
            embed=embed,
            context=context.id if context is not None else "",
            stream=request.spec.streams,
            tenant=request.session.owner,
            buffers=files,
            options=dict(options or {}),
        )
        if not kernel.models.ready_to_run(model):
            request.because("model.waking", f"{model.name} is {model.status}; it is made ready first")
            self.make_ready(model, request)
        attempt, tokens = model.speed.begin(), None
        try:
            inference = await self._twice(request, model, work, context, attempt)
            tokens = inference.usage.new_tokens
        finally:
            attempt.speed.end(attempt, tokens)
        return self._account(request, model, context, inference, attempt)

    def make_ready(self, model: ModelObject, request: Request) -> None:
        """Load or wake a model that this request waits for; when that fails, whatever waits for it ends."""
        steps = self._wake(model, request)
        self._kernel.runner.spawn(steps, lambda _value, error: self._not_ready(model, error))

    async def _wake(self, model: ModelObject, request: Request) -> None:
        await self._kernel.supervisor.wait_ready(model.driver)
        await self._kernel.models.wake(model, request)

    def _not_ready(self, model: ModelObject, error: LlmosError | None) -> None:
        """What waits for a model that cannot be made ready ends; after a crash it waits for the next start instead."""
        if error is not None and not isinstance(error, PeerGone):
            for ticket in self._kernel.scheduler.waiting(model.id):
                self._kernel.interrupt(self._kernel.requests[ticket.id], error)

    def _submit(self, request: Request, model: ModelObject) -> None:
        call = request.call
        ticket = Ticket(
            request.id, model.id, request.session.id, request.session.owner, request.arrived, call.work_class,
            call.priority, call.deadline, self._kernel.quotas.standing(request.session).weights,
        )  # fmt: skip
        kernel = self._kernel
        wait = kernel.scheduler.submit(ticket, request.session.limits.queued_requests, kernel.runner.clock())
        self.turns[request.id] = kernel.runner.future()
        kernel.pump()
        queued = kernel.scheduler.queued_reason(request.id, wait)
        if queued is not None:
            kernel.decide([request.id], queued, "debug", see=[model.id])

    async def _turn(self, request: Request) -> None:
        """Wait for the start; whatever ends the wait early takes the request out of the queue."""
        turn = self.turns[request.id]
        try:
            await turn
        except LlmosError:
            if self._kernel.scheduler.cancel(request.id) == "running":
                self.left(request.id)
            raise
        finally:
            self.turns.pop(request.id, None)

    async def _twice(
        self, request: Request, model: ModelObject, work: Work, context: ContextObject | None, attempt: Attempt
    ) -> Inference:
        """Run; when the driver ends before anything was delivered, run once more, first in the queue."""
        await self._turn(request)
        try:
            return await self._once(request, model, work, context, attempt)
        except PeerGone as gone:
            back = model.driver.state not in (DriverState.FAILED, DriverState.STOPPED)
            repeatable = back and not attempt.tokens and context is None and not request.cancelled
            if not repeatable or not self._kernel.scheduler.requeue(request.id):
                self.left(request.id)
                raise PeerGone(str(gone), tokens_done=attempt.tokens) from None
        ended = f"driver {model.driver.name} ended before it delivered anything"
        request.because("request.repeated", f"{ended}; the request was run a second time", "once more, never twice")
        self.turns[request.id] = self._kernel.runner.future()
        self._kernel.pump()
        await self._turn(request)
        try:
            return await self._once(request, model, work, context, attempt)
        except PeerGone as gone:
            self.left(request.id)
            raise PeerGone(str(gone), tokens_done=attempt.tokens) from None

    async def _once(
        self, request: Request, model: ModelObject, work: Work, context: ContextObject | None, attempt: Attempt
    ) -> Inference:
        """One try on the driver. The slot is given back when the driver has let go; after PeerGone by the caller."""
        kernel, host_id, version = self._kernel, model.host_id, model.version
        try:
            kernel.models.check(model)
            if context is not None and context.status != "open":
                raise BadState(f"context {context.id} is lost: open a new one from the text", state=context.status)
            link = model.driver.link
            assert link is not None
            submit = HostSubmit(
                work=msgspec.structs.replace(work, model=host_id),
                deadline=request.call.deadline,
                priority=request.call.priority,
                work_class=request.call.work_class,
            )
            future = link.stream(submit, self._on_chunk(request, attempt))
        except LlmosError:
            self.left(request.id)
            raise
        kernel.users[host_id] += 1
        request.on_cancel = lambda: _ask(link, request.id)
        gone = False
        try:
            return msgspec.structs.replace(await future, model_version=version)  # a swap may have come meanwhile
        except PeerGone:
            gone = True
            raise
        except LlmosError:
            if not future.done:
                _ask(link, request.id)
            raise
        finally:
            request.on_cancel = None
            kernel.runner.spawn(self._let_go(future, request.id, host_id, gone), lambda _value, _error: None)

    async def _let_go(self, future: Future[Inference], request_id: str, host_id: str, keeps_slot: bool) -> None:
        """The driver has answered or ended, maybe long after the request: what it held on the model is free."""
        try:
            await future
        finally:
            self._kernel.users[host_id] -= 1
            self._kernel.swaps.request_left(host_id)
            if not keeps_slot:
                self.left(request_id)

    def left(self, request_id: str) -> None:
        """A started request has ended: its slot is free."""
        kernel, now = self._kernel, self._kernel.runner.clock()
        ticket = kernel.scheduler.finish(request_id, now)
        if ticket is not None:
            model = kernel.models.by_id.get(ticket.lane)
            kernel.residency.end(ticket.lane, now)
            if model is not None:
                kernel.rooms.look(model.driver.name)
            if model is not None and model.idle is not None and not kernel.scheduler.running(ticket.lane):
                model.idle.set(None)
        kernel.pump()

    def _on_chunk(self, request: Request, attempt: Attempt) -> Callable[[Chunk], None]:
        def take(chunk: Chunk) -> None:
            attempt.first = attempt.first or self._kernel.runner.clock()
            attempt.tokens += len(chunk.tokens)
            request.offer(chunk)

        return take

    def _account(
        self,
        request: Request,
        model: ModelObject,
        context: ContextObject | None,
        inference: Inference,
        attempt: Attempt,
    ) -> Inference:
        kernel, now, usage = self._kernel, self._kernel.runner.clock(), inference.usage
        kernel.quotas.tokens(request, usage.prompt_tokens - usage.cached_tokens + usage.new_tokens)
        model.used = kernel.wall()
        if context is not None:
            grown = usage.prompt_tokens - usage.cached_tokens + usage.new_tokens
            context.opened = msgspec.structs.replace(context.opened, tokens=context.opened.tokens + grown)
        started = kernel.started.pop(request.id, request.arrived)
        timing = Timing(
            queued=started - request.arrived,
            first=attempt.first - request.arrived if attempt.first else 0,
            total=now - request.arrived,
        )
        kernel.instruments.answered(model.name, inference, timing)
        if timing.first:
            attempt.speed.answered(usage.new_tokens // max(1, len(inference.choices)), timing)
        return msgspec.structs.replace(inference, id=request.id, timing=timing, reasons=request.reasons)

    # ---- shared buffers inside inputs

    def _buffers(self, request: Request, content: Input) -> dict[str, BufferFile]:
        found: dict[str, BufferFile] = {}
        for data in _data_of(content):
            if isinstance(data, BufferRef):
                buffer = self.buffer(request, data.buffer, Right.READ)
                found[str(data.buffer)] = BufferFile(path=str(buffer.file.path), bytes=buffer.bytes)
        return found

    def buffer(self, request: Request, handle: Handle, right: Right) -> BufferObject:
        """The buffer behind a handle that a value of the call names, checked like any handle argument."""
        entry = self._kernel.handles.get(request.session.id, handle, Kind.BUFFER, (right,), "buffer")
        found = self._kernel.objects[entry.object]
        assert isinstance(found, BufferObject)
        return found


def _ask(link: Link, request_id: str) -> bool:
    link.call(HostCancel(id=request_id))
    return True


def _data_of(content: Input) -> list[Any]:
    if isinstance(content, Tensors):
        return [tensor.data for tensor in content.named.values()]
    if isinstance(content, Parts):
        return [getattr(part, "data", None) for part in content.parts]
    return []
