"""One request: from its arrival to its single terminal answer, whoever asks for it again meanwhile.

A request is answered exactly once. The same idempotency key attaches another receiver, or repeats the stored answer.
Streams are bounded by credit: what the reader has not paid for is merged here, so memory stays bounded by the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmos.syscalls.errors import BadArgument, Busy, LlmosError, NoDeviceMemory, OverQuota, TimedOut, TooLarge
from llmos.syscalls.spec import CallSpec
from llmos.syscalls.types import Chunk, Event, Kind, Reason
from llmos.syscalls.wire import MessageKind, Progress, Reply, error_frames, pack

from .advice import outcome
from .handles import Entry
from .pending import Future, Job, Timer

if TYPE_CHECKING:
    from .core import Kernel
    from .session import Session


_JOINED_TOKENS = 2048
_SUBJECTS = (Kind.MODEL, Kind.DEVICE)


class Request:
    """The context a handler gets: who asks, with which checked handles, and how to answer."""

    __slots__ = (
        "_credit_backlog", "arrived", "call", "cancelled", "credit", "ended", "entries", "finished", "id", "job",
        "kernel", "key", "merge", "on_cancel", "reasons", "receivers", "session", "spec", "stalled", "timer",
    )  # fmt: skip

    def __init__(
        self,
        kernel: Kernel,
        session: Session,
        number: int,
        request_id: str,
        spec: CallSpec,
        call: Any,
        entries: Mapping[str, Entry],
    ) -> None:
        self.kernel = kernel
        self.session = session
        self.id = request_id
        self.spec = spec
        self.call = call
        self.entries = entries
        self.key: str = call.key
        self.receivers = [number]
        self.arrived = kernel.runner.clock()
        self.reasons: list[Reason] = []
        self.finished = False
        self.cancelled = False
        """Nobody wants the answer any more: it is not run again after a crash."""
        self.job: Job | None = None
        self.timer: Timer | None = None
        self.ended: list[Future[None]] = []
        """Who waits for this request to end."""
        self.on_cancel: Callable[[], bool] | None = None
        """Set while the request runs on a driver: asks it to stop and says whether an answer will follow."""
        self.credit: int = getattr(call, "credit", 0)
        self.merge: Callable[[list[Any], Any], None] = merge_chunks
        self._credit_backlog: list[Any] = []
        self.stalled: Timer | None = None

    # ---- terminal answers

    def answer(self, value: Any) -> None:
        """Send the result."""
        if self.job is not None:
            ended = outcome.answered(self.spec.name, value, (self.kernel.runner.clock() - self.arrived) / 1e9)
            self.kernel.decisions.note((self.id, self.session.id, self.session.owner), ended)
        kind = MessageKind.END if self.spec.streams else MessageKind.REPLY
        body = Reply(value=value, reasons=self.reasons, request=self.id)
        try:
            frame = pack(kind, 0, "", body)[1]
        except (TooLarge, BadArgument) as error:
            self.fail(error)
            return
        self._finish(kind, frame)

    def fail(self, error: LlmosError) -> None:
        """Send an error."""
        about = [self.id, self.session.id, self.session.owner, *self._subjects()]
        seconds = (self.kernel.runner.clock() - self.arrived) / 1e9
        reasons = [*(_plain(reason) for reason in self.reasons), *error.reasons]
        mine = type(error)(error.text, reasons=reasons, request=self.id, **error.fields())
        frame = error_frames(0, mine)[1]
        if isinstance(error, (Busy, OverQuota)):
            self.kernel.decisions.refused(self.spec.name, about, error, frame, seconds, len(self.reasons))
        else:
            for reason in outcome.ended(self.spec.name, error, seconds):
                self.kernel.decide(about, reason, "info" if isinstance(error, NoDeviceMemory) else "debug")
        self.kernel.metrics_error(self.spec.name, type(error).__name__)
        self._finish(MessageKind.ERROR, frame)

    def _subjects(self) -> list[str]:
        """What it was about: the models and devices that it named."""
        return [each.object.removeprefix("device:") for each in self.entries.values() if each.kind in _SUBJECTS]

    def _finish(self, kind: MessageKind, frame: bytes) -> None:
        if self.finished:
            raise AssertionError(f"request {self.id} is answered twice")
        self._flush_backlog()
        self.finished = True
        for timer in (self.timer, self.stalled):
            if timer is not None:
                timer.cancel()
        for number in self.receivers:
            self.session.terminal(number, kind, frame)
        self.session.finished(self, kind, frame)
        self.kernel.request_done(self)

    # ---- before the end

    def progress(self, done: int, total: int = 0, unit: str = "", stage: str = "") -> None:
        """Tell how far the work has come."""
        if not self.finished:
            body = Progress(done=done, total=total, unit=unit, stage=stage)
            for number in self.receivers:
                self.session.send(pack(MessageKind.PROGRESS, number, "", body))

    def offer(self, item: Any) -> None:
        """Send one item of a stream, or keep it (merged) until the reader grants credit."""
        if self.finished:
            return
        if self.credit > 0 and not self._credit_backlog:
            self.credit -= 1
            self._deliver(item)
            return
        self.merge(self._credit_backlog, item)
        if self.stalled is None:
            seconds = self.kernel.config.limits.stalled_reader_s
            self.stalled = self.kernel.runner.after(seconds, lambda: self._stalled_reader(seconds))

    def grant(self, credit: int) -> None:
        """The reader has read: send what waits."""
        self.credit += credit
        while self.credit > 0 and self._credit_backlog:
            self.credit -= 1
            self._deliver(self._credit_backlog.pop(0))
        if not self._credit_backlog and self.stalled is not None:
            self.stalled.cancel()
            self.stalled = None

    def _deliver(self, item: Any) -> None:
        for number in self.receivers:
            self.session.chunk(number, item)

    def _flush_backlog(self) -> None:
        for item in self._credit_backlog:
            self._deliver(item)
        self._credit_backlog.clear()

    def _stalled_reader(self, seconds: float) -> None:
        self.stalled = None
        self.interrupt(TimedOut(f"the reader of {self.spec.name} took nothing for {seconds:g} s"))

    def interrupt(self, error: LlmosError) -> None:
        """End the request with an error while it runs."""
        self.kernel.interrupt(self, error)

    def because(self, code: str, text: str, rule: str = "", **numbers: float | int | str) -> Reason:
        """Note a decision; it travels with the answer and is what `why` shows."""
        reason = self.kernel.reason(code, text, rule, **numbers)
        return self.decided(reason)

    def decided(self, reason: Reason, also: Sequence[str] = (), level: str = "debug") -> Reason:
        """Take a decision about this request, and about those of the ids `also`; it travels with the answer."""
        reason = self.kernel.decide([self.id, *also], reason, level)
        self.reasons.append(reason)
        return reason


def merge_chunks(backlog: list[Any], item: Chunk) -> None:
    """Join a chunk to the newest one of its choice, so that a slow reader costs few chunks, each of modest size."""
    for position in range(len(backlog) - 1, -1, -1):
        waiting = backlog[position]
        if waiting.index == item.index:
            if len(waiting.tokens) + len(item.tokens) > _JOINED_TOKENS:
                break
            logprobs = None if item.logprobs is None else [*(waiting.logprobs or []), *item.logprobs]
            backlog[position] = Chunk(
                index=item.index,
                text=waiting.text + item.text,
                tokens=[*waiting.tokens, *item.tokens],
                logprobs=logprobs,
            )
            return
    backlog.append(item)


def drop_events(backlog: list[Any], item: Event) -> None:
    """Keep the newest event and count what is lost in it."""
    lost = item.lost + sum(waiting.lost + 1 for waiting in backlog)
    backlog[:] = [Event(kind=item.kind, about=item.about, at=item.at, fields=item.fields, lost=lost)]


def _plain(reason: Reason) -> dict[str, Any]:
    return {name: getattr(reason, name) for name in reason.__struct_fields__}
