"""What a client knows about its requests, without any I/O: the one core under the sync and the async client.

Calls go in and frames come out; frames come in and requests change. The rules that must not differ between the two
clients live here: request ids, credit, deadlines, what Ctrl-C and a lost connection do to a request, and when a request
may be sent again.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgpack
import msgspec

from llmos.syscalls import calls, wire
from llmos.syscalls.errors import BadCall, LlmosError, NotSupported, PeerGone, TimedOut, from_wire
from llmos.syscalls.spec import SYSCALLS, Call, CallSpec
from llmos.syscalls.types import Reason, Welcome
from llmos.syscalls.wire import MessageKind, Progress

from .flow import OnProgress

R = TypeVar("R")

Frames = list[bytes]

GRACE_NS = 500_000_000
"""How long after a deadline the client still waits for the kernel's own answer before it gives one itself."""

_SPECS: dict[type, CallSpec] = {spec.cls: spec for spec in SYSCALLS.values()}
_READS = frozenset(
    {
        calls.ListObjects, calls.StatObject, calls.ListDir, calls.StatPath, calls.ReadFile, calls.ReadMetrics,
        calls.ReadJournal, calls.SearchFs, calls.WaitTask, calls.WatchEvents,
    }
)  # fmt: skip
"""Calls that change nothing, so that repeating one needs no idempotency key."""
_ONCE = frozenset({calls.Hello, calls.CloseHandle, calls.CancelTask})
"""Calls that are never repeated: a lost connection has answered them."""


class Pending(Generic[R]):
    """One request in flight. `done` turns true with its terminal answer, and never back."""

    # Most requests never change most of these, so they live in the class until they do.
    done = False
    error: LlmosError | None = None
    value: Any = None
    reasons: Sequence[Reason] = ()
    """The kernel's decisions about the request, known with its answer."""
    request = ""
    """The stable id of the request, known with its answer."""
    cancelled = False
    delivered = False
    repeated = False
    owed = 0
    """Items taken for which no credit was granted yet."""
    _news: tuple[Progress, ...] = ()
    notify: Callable[[], None] | None = None
    """Called after each change; the async client sets it."""

    def __init__(self, number: int, spec: CallSpec, call: Call[Any], on_progress: OnProgress | None) -> None:
        self.id = number
        self.spec = spec
        self.call = call
        self.on_progress = on_progress
        self.items: deque[Any] = deque()
        self.expires = None if call.deadline is None else call.deadline + GRACE_NS

    def progressed(self, progress: Progress) -> None:
        if self.on_progress is not None:
            self._news = (*self._news, progress)
            if self.notify is not None:
                self.notify()

    def report(self) -> None:
        """Hand progress that has arrived to the caller; clients call it where the caller waits."""
        while self._news and self.on_progress is not None:
            first, *rest = self._news
            self._news = tuple(rest)
            self.on_progress(first)

    def result(self) -> R:
        """The result, once `done`; raises the error that the request ended with."""
        if self.error is not None:
            raise self.error
        result: R = self.value
        return result

    def finish(self, value: Any, error: LlmosError | None) -> None:
        self.value, self.error, self.done = value, error, True
        if self.notify is not None:
            self.notify()


class Protocol:
    """The requests of one client.

    Args:
        clock: monotonic nanoseconds of the machine.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.clock = clock
        self.pending: dict[int, Pending[Any]] = {}
        self.welcome: Welcome | None = None
        self.ended = ""
        """Why the session is over; empty while it lasts."""
        self._number = 0
        self._keys = os.urandom(6).hex()

    def start(
        self,
        call: Call[Any],
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> tuple[Pending[Any], Frames]:
        """Begin a request: what to wait for and what to send.

        Args:
            timeout: seconds, set as the deadline of the call.

        Raises:
            PeerGone: the session ended with an earlier connection.
            TooLarge: the message exceeds the limit of the wire.
        """
        if self.ended and type(call) is not calls.Hello:
            raise PeerGone(self.ended)
        spec = _SPECS[type(call)]
        if timeout is not None:
            call = msgspec.structs.replace(call, deadline=self.clock() + int(timeout * 1e9))
        self._number += 1
        number = self._number
        if not call.key and spec.cls not in _READS and spec.cls not in _ONCE:
            call = msgspec.structs.replace(call, key=f"{self._keys}-{number}")
        frames = wire.pack(MessageKind.CALL, number, spec.name, call)
        pending: Pending[Any] = Pending(number, spec, call, on_progress)
        self.pending[number] = pending
        return pending, frames

    # ---- what arrives

    def receive(self, header: bytes, frame: bytes) -> None:
        """Take in one message of the kernel; one that cannot be understood ends the session."""
        try:
            kind, number, _ = wire.unpack_header(header)
            body = _decode(frame)
        except BadCall as error:
            self.lost(f"the kernel's message is not understood: {error}")
            return
        if kind is MessageKind.CHUNK:
            for owner, item in body["items"]:
                self._item(owner, item)
            return
        pending = self.pending.get(number)
        if pending is None:
            return
        if kind is MessageKind.PROGRESS:
            pending.progressed(msgspec.convert(body, Progress))
            return
        if kind is MessageKind.ERROR:
            pending.finish(None, from_wire(body))
        else:
            self._answer(pending, body)
        self.pending.pop(number, None)

    def _item(self, number: int, item: Any) -> None:
        pending = self.pending.get(number)
        if pending is None:
            return
        pending.delivered = True
        pending.items.append(item)
        if pending.notify is not None:
            pending.notify()

    def _answer(self, pending: Pending[Any], body: dict[str, Any]) -> None:
        pending.request = body.get("request", "")
        if reasons := body.get("reasons"):
            pending.reasons = msgspec.convert(reasons, list[Reason])
        try:
            value = msgspec.convert(body.get("value"), pending.spec.result, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            pending.finish(None, NotSupported(
                f"the kernel's answer to {pending.spec.name} is not understood ({error}): "
                "kernel and client are of different versions; update the older one",
                why="versions differ",
            ))  # fmt: skip
            return
        pending.finish(value, None)

    # ---- streams

    def take(self, pending: Pending[Any]) -> tuple[Any, Frames | None]:
        """The next item of a stream (there must be one), and a credit frame when half of the window is used up."""
        item = msgspec.convert(pending.items.popleft(), pending.spec.item, builtin_types=(bytes,))
        pending.owed += 1
        if pending.done or pending.owed * 2 < getattr(pending.call, "credit", 1):
            return item, None
        owed, pending.owed = pending.owed, 0
        return item, wire.pack(MessageKind.CREDIT, pending.id, "", {"credit": owed})

    # ---- the end of a request from this side

    def cancel(self, pending: Pending[Any]) -> list[Frames]:
        """Ask the kernel to end a request; its terminal answer still comes."""
        if pending.done or pending.cancelled:
            return []
        pending.cancelled = True
        return [wire.pack(MessageKind.CANCEL, pending.id)]

    def abandon(self, pending: Pending[Any]) -> list[Frames]:
        """Cancel a request whose answer nobody waits for any more; whatever arrives for it is dropped."""
        frames = self.cancel(pending)
        self.pending.pop(pending.id, None)
        return frames

    def expire(self, pending: Pending[Any]) -> list[Frames]:
        """End a request whose deadline passed without an answer of the kernel."""
        frames = self.abandon(pending)
        pending.finish(None, TimedOut(
            f"{pending.spec.name}: no answer until the deadline, and the kernel does not say why; "
            "see whether it is stopped or overloaded",
        ))  # fmt: skip
        return frames

    # ---- connections

    def resumed(self) -> list[Frames]:
        """A new connection took the session up again: send what may be repeated, once; the rest ends with PeerGone."""
        waiting, self.pending = list(self.pending.values()), {}
        frames = []
        for pending in waiting:
            if not _may_repeat(pending):
                pending.finish(None, PeerGone(
                    f"{pending.spec.name}: the connection to the kernel broke; whether it was done is not known",
                ))  # fmt: skip
                continue
            self._number += 1
            pending.id, pending.repeated = self._number, True
            self.pending[pending.id] = pending
            frames.append(wire.pack(MessageKind.CALL, pending.id, pending.spec.name, pending.call))
        return frames

    def lost(self, why: str) -> None:
        """The session is over: everything in flight, and every later call, ends with PeerGone."""
        self.ended = why
        waiting, self.pending = list(self.pending.values()), {}
        for pending in waiting:
            pending.finish(None, PeerGone(f"{pending.spec.name}: {why}"))

    def renewed(self, welcome: Welcome) -> None:
        """A session was opened."""
        self.welcome, self.ended = welcome, ""


def _decode(frame: bytes) -> dict[str, Any]:
    """The body of a message of the kernel, which is trusted: no limits are checked."""
    try:
        body: dict[str, Any] = msgpack.unpackb(frame, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise BadCall(f"the kernel sent what is not msgpack: {error}") from None
    return body


def _may_repeat(pending: Pending[Any]) -> bool:
    if pending.repeated or pending.delivered or pending.cancelled:
        return False
    return pending.spec.cls in _READS or bool(pending.call.key)
