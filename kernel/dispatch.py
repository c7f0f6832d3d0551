"""From frames to a handler and back: decode, check arguments, check rights, run, answer exactly once.

Rights stand in the call's type and are checked here, before the handler runs, so that no handler can forget to. A
handler answers at once or is a coroutine; errors of the contract become answers, any other exception is a bug of the
kernel and ends it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument, BadCall, Cancelled, Denied, LlmosError, OverQuota, TimedOut
from llmos.syscalls.spec import SYSCALLS, Call, CallSpec, check
from llmos.syscalls.wire import MessageKind, error_frames, unpack_body, unpack_header

from .handles import Entry
from .requests import Request
from .session import Peer, Session

if TYPE_CHECKING:
    from .core import Kernel

C = TypeVar("C", bound=Call[Any])
Handler = Callable[[Request, Any], Any]


class Handlers(dict[type[Any], Handler]):
    """The handler of each call."""

    def implements(self, call: type[C]) -> Callable[[Callable[[Request, C], Any]], Callable[[Request, C], Any]]:
        """Decorator: this function is what `call` does."""

        def register(function: Callable[[Request, C], Any]) -> Callable[[Request, C], Any]:
            if call in self:
                raise TypeError(f"{call.__name__} has two handlers")
            self[call] = function
            return function

        return register


class Dispatcher:
    """Takes messages of clients."""

    def __init__(self, kernel: Kernel, handlers: Mapping[type[Any], Handler]) -> None:
        missing = [name for name, spec in SYSCALLS.items() if spec.cls not in handlers and spec.cls is not calls.Hello]
        if missing:
            raise TypeError(f"calls without a handler: {', '.join(missing)}")
        self._kernel = kernel
        self._handlers = handlers

    def receive(self, route: bytes, peer: Peer, frames: Sequence[bytes]) -> None:
        """One message of a client, from the connection `route` of process `peer`."""
        session = self._kernel.routes.get(route)
        if session is not None and session.peer != peer:
            session = None
        number = 0
        try:
            if len(frames) != 2:
                raise BadCall(f"a message has 2 frames (header, body), this one has {len(frames)}")
            kind, number, name = unpack_header(frames[0])
            if kind is MessageKind.CALL:
                self._call(route, peer, session, number, name, frames[1])
            elif session is None:
                raise _no_session()
            elif kind is MessageKind.CANCEL:
                self._cancel(session, number)
            elif kind is MessageKind.CREDIT:
                self._credit(session, number, frames[1])
            else:
                raise BadCall(f"a program sends call, cancel or credit, not {kind.value}")
        except LlmosError as error:
            self._kernel.metrics_error("", type(error).__name__)
            self._kernel.send_client(route, error_frames(number, error))

    def _call(self, route: bytes, peer: Peer, session: Session | None, number: int, name: str, frame: bytes) -> None:
        spec = SYSCALLS.get(name)
        if spec is None:
            raise _unknown_call(name)
        call = check(spec, unpack_body(frame))
        if isinstance(call, calls.Hello):
            self._kernel.sessions.hello(route, peer, number, call)
            return
        if session is None:
            raise _no_session()
        if number == 0 or number in session.requests:
            raise BadCall(f"request id {number} is {'reserved' if number == 0 else 'in flight already'}: use a new one")
        if call.key and session.repeat(number, call.key):
            return
        if call.deadline is not None and call.deadline <= self._kernel.runner.clock():
            raise TimedOut(f"{name}: the deadline had passed when the call arrived")
        self._run(session, number, spec, call, self._entries(session, spec, call))

    def _entries(self, session: Session, spec: CallSpec, call: Any) -> dict[str, Entry]:
        """The handle arguments, each checked to be open, of its kind, and with its rights."""
        entries = {}
        for field in spec.handles:
            handle = getattr(call, field.name)
            if handle is not None:
                entries[field.name] = self._kernel.handles.get(session.id, handle, field.kind, field.rights, field.name)
        return entries

    def _run(self, session: Session, number: int, spec: CallSpec, call: Any, entries: Mapping[str, Entry]) -> None:
        kernel = self._kernel
        limit = session.limits.queued_requests
        if limit and len(session.requests) >= limit:
            raise OverQuota(
                f"{spec.name}: this session has {limit} requests in flight, its limit; read some answers first",
                what="queued_requests",
                limit=limit,
                retry_after_ms=100,
            )
        request = Request(kernel, session, number, kernel.new_id("r"), spec, call, entries)
        kernel.metrics_call(spec.name)
        try:
            result = self._handlers[spec.cls](request, call)
        except LlmosError as error:
            request.fail(error)
            return
        if not isinstance(result, CoroutineType):
            request.answer(result)
            return
        session.begin(number, request)
        kernel.requests[request.id] = request
        if call.deadline is not None:
            request.timer = kernel.runner.at(call.deadline, lambda: self._deadline(request))
        request.job = kernel.runner.spawn(result, lambda value, error: _finish(request, value, error))

    def _deadline(self, request: Request) -> None:
        waited = (self._kernel.runner.clock() - request.arrived) / 1e9
        self._kernel.interrupt(
            request, TimedOut(f"{request.spec.name}: the deadline passed after {waited:.3f} s; ask for more time")
        )

    def _cancel(self, session: Session, number: int) -> None:
        request = session.requests.get(number)
        if request is not None:
            self.cancel(request)

    def cancel(self, request: Request) -> bool:
        """End a request early: running work answers with what it has, waiting work with an error. False if over."""
        if request.finished:
            return False
        request.cancelled = True
        if request.on_cancel is None or not request.on_cancel():
            self._kernel.interrupt(request, Cancelled(f"{request.spec.name} was cancelled"))
        return True

    def _credit(self, session: Session, number: int, frame: bytes) -> None:
        credit = unpack_body(frame).get("credit")
        if type(credit) is not int or not 0 < credit <= 100_000:
            raise BadArgument(f"credit is {credit!r}; not 1 to 100000", name="credit", got=repr(credit), want="int")
        request = session.requests.get(number)
        if request is not None:
            request.grant(credit)


def _finish(request: Request, value: Any, error: LlmosError | None) -> None:
    if error is not None:
        request.fail(error)
    else:
        request.answer(value)


def _no_session() -> Denied:
    return Denied("this connection has no session: call hello first", missing="session")


def _unknown_call(name: str) -> BadCall:
    near = difflib.get_close_matches(name, SYSCALLS, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return BadCall(f"there is no call {name[:80]!r}{hint}")
