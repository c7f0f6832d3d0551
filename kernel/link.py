"""The kernel's end of a host: calls in flight, their answers, and what the host reports.

Nothing a host sends is trusted beyond its schema: the first frame that does not fit makes the whole host suspect, and
the supervisor ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, TypeVar

import msgspec

from llmos.syscalls.driver import HOST_CALLS
from llmos.syscalls.errors import LlmosError, PeerGone, from_wire
from llmos.syscalls.events import Beat, HostEvent
from llmos.syscalls.spec import Call, CallSpec, Stream
from llmos.syscalls.types import Value
from llmos.syscalls.wire import MessageKind, Progress, pack, unpack

from .pending import Future, Runner

R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F")

Send = Callable[[Sequence[bytes]], None]
_DOING = {"submit": "while it answered", "load": "while it loaded the model", "wake": "while it woke the model"}
AWAKE_NS = 500_000
"""Most answers of a file system are here after 150 us, and a program that reads on has asked again after 400."""
_SPECS = {spec.cls: spec for spec in HOST_CALLS.values()}


class Garbage(Value):
    """Why a host's message was refused."""

    why: str


class HostCall:
    """One call in flight to a host."""

    __slots__ = ("future", "on_item", "on_progress", "spec")

    def __init__(
        self,
        spec: CallSpec,
        future: Future[Any],
        on_item: Callable[[Any], None] | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.spec = spec
        self.future = future
        self.on_item = on_item
        self.on_progress = on_progress


class Link:
    """Calls to one host process and their answers."""

    def __init__(self, name: str, runner: Runner, send: Send) -> None:
        self.name = name
        self._runner = runner
        self._send = send
        self._calls: dict[int, HostCall] = {}
        self._numbers = count(1)
        self._gone: str | None = None

    def call(self, call: Call[R], on_progress: Callable[[Progress], None] | None = None) -> Future[R]:
        """Send a call; the future gets its result, its error, or PeerGone when the host ends first."""
        future = self._start(call, None, on_progress)
        self._runner.expect(AWAKE_NS)
        return future

    def stream(self, call: Call[Stream[T, F]], on_item: Callable[[T], None]) -> Future[F]:
        """Send a streaming call; `on_item` gets each chunk, the future what the end carries."""
        return self._start(call, on_item, None)

    def _start(
        self,
        call: Call[Any],
        on_item: Callable[[Any], None] | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> Future[Any]:
        future = self._runner.future()
        if self._gone is not None:
            future.fail(PeerGone(f"driver {self.name} has ended: {self._gone}"))
            return future
        spec = _SPECS[type(call)]
        number = next(self._numbers)
        frames = pack(MessageKind.CALL, number, spec.name, call)
        self._calls[number] = HostCall(spec, future, on_item, on_progress)
        self._send(frames)
        return future

    def receive(self, frames: Sequence[bytes]) -> HostEvent | Garbage | None:
        """Take one message in; an event or beat is handed back, answers go to their futures."""
        try:
            message = unpack(frames)
            if message.kind is MessageKind.BEAT:
                return msgspec.convert({"event": "beat", **message.body}, Beat)
            if message.kind is MessageKind.EVENT:
                event: HostEvent = msgspec.convert({**message.body, "event": message.name}, HostEvent)
                return event
            if message.kind is MessageKind.CHUNK:
                return self._items(message.body)
            return self._answer(message.kind, message.request, message.body)
        except (LlmosError, msgspec.ValidationError) as error:
            return Garbage(why=f"{type(error).__name__}: {error}")

    def _items(self, body: dict[str, Any]) -> Garbage | None:
        for number, item in msgspec.convert(body.get("items"), list[tuple[int, dict[str, Any]]]):
            call = self._calls.get(number)
            if call is None or call.on_item is None:
                return Garbage(why=f"a chunk for request {number}, which does not stream")
            call.on_item(msgspec.convert(item, call.spec.item))
        return None

    def _answer(self, kind: MessageKind, number: int, body: dict[str, Any]) -> Garbage | None:
        call = self._calls.get(number)
        if call is None:
            return Garbage(why=f"{kind.value} to request {number}, which is not in flight")
        if kind is MessageKind.PROGRESS:
            if call.on_progress is not None:
                call.on_progress(msgspec.convert(body, Progress))
            return None
        if kind is MessageKind.ERROR:
            del self._calls[number]
            call.future.fail(from_wire(body))
            return None
        expected = MessageKind.END if call.spec.streams else MessageKind.REPLY
        if kind is not expected:
            return Garbage(why=f"{kind.value} to {call.spec.name}; expected {expected.value}")
        value = msgspec.convert(body.get("value"), call.spec.result)
        del self._calls[number]
        call.future.set(value)
        return None

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    def lost(self, cause: str) -> None:
        """The host has ended: every call in flight fails with PeerGone, and so does every later one."""
        self._gone = cause
        calls, self._calls = self._calls, {}
        for call in calls.values():
            doing = _DOING.get(call.spec.name, f"during {call.spec.name}")
            call.future.fail(PeerGone(f"driver {self.name} ended {doing}: {cause}"))
