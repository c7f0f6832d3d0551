"""The sync client: calls as values in, results out."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import zmq

from llmos.syscalls.calls import CloseHandle
from llmos.syscalls.errors import LlmosError
from llmos.syscalls.spec import Call, Stream
from llmos.syscalls.types import Handle, Welcome

from . import bulk
from .flow import Flow, OnProgress
from .join import PATIENCE, Caller
from .link import Link
from .places import kernel_address
from .pump import Pump
from .reader import Answer, StreamReader

R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F")

GOODBYE = 0.5
"""Seconds that a closing client waits for the end of its session."""


def program_name() -> str:
    """What this program is called, for people to read."""
    return Path(sys.argv[0]).name or "python"


class Client:
    """A session with the kernel. Threads may share it; a `fork` may not.

    Args:
        address: `ipc://PATH` of the kernel's socket; by default that of the running kernel.
        program: what this program calls itself, for people to read.
        tenant: a part of the caller's own share.
        patience: seconds to wait for a new kernel when the connection breaks.
        context: a zmq context to share; `inproc://` needs it.
        last_words: says how the kernel ended, for the error of requests that it took with it.

    Raises:
        NoKernel: nobody listens at the address.
        Denied: the kernel's policy does not let this user in.
    """

    def __init__(
        self,
        address: str = "",
        *,
        program: str = "",
        tenant: str = "",
        patience: float = PATIENCE,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        last_words: Callable[[], str] | None = None,
    ) -> None:
        caller = Caller(program or program_name(), tenant, patience, last_words)
        self._pump = Pump(Link(address or kernel_address(), context), caller)
        self.held: Counter[Handle] = Counter()
        """How many objects of this program share each handle."""

    def call(self, request: Call[R], *, timeout: float | None = None, on_progress: OnProgress | None = None) -> R:
        """Make a call and wait for its result.

        Args:
            timeout: seconds; becomes the deadline of the call.
            on_progress: called with each `Progress` of long work, in the calling thread.

        Raises:
            LlmosError: what the call ended with.
            KeyboardInterrupt: Ctrl-C; the request has been cancelled and the connection stays usable.
        """
        if bulk.is_bulky(request):
            moved = bulk.with_timeout(request, timeout)
            result = self.run(bulk.send(moved, self.welcome.system, on_progress))
        else:
            pending = self._pump.begin(request, timeout, on_progress)
            self._pump.wait(pending)
            result = pending.result()
        return self.run(bulk.fetch(result)) if bulk.is_elsewhere(result) else result

    def submit(
        self, request: Call[R], *, timeout: float | None = None, on_progress: OnProgress | None = None
    ) -> Answer[R]:
        """Start a call without waiting, so that many can be in flight. Bytes are not moved to buffers."""
        return Answer(self._pump, self._pump.start(request, timeout, on_progress))

    def stream(self, request: Call[Stream[T, F]], *, timeout: float | None = None) -> StreamReader[T, F]:
        """Start a streaming call: iterate over its items, then take `.result`."""
        buffers: list[Handle] = []
        if bulk.is_bulky(request):
            request, buffers = self.run(bulk.move(request, self.welcome.system))
        return StreamReader(self._pump, self._pump.start(request, timeout), buffers)

    def run(self, flow: Flow[R]) -> R:
        """Run a flow of several calls to its end."""
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                step = flow.send(answer) if error is None else flow.throw(error)
            except StopIteration as stop:
                result: R = stop.value
                return result
            try:
                answer, error = self.call(step.call, on_progress=step.on_progress), None
            except (LlmosError, KeyboardInterrupt) as raised:
                answer, error = None, raised

    @property
    def welcome(self) -> Welcome:
        """What `hello` answered."""
        assert self._pump.core.welcome is not None
        return self._pump.core.welcome

    @property
    def ended(self) -> str:
        """Why the session is over; empty while it lasts."""
        return self._pump.core.ended

    def renew(self) -> None:
        """Go on in a new session after the old one ended with its kernel; handles of the old one stay invalid.

        Raises:
            NoKernel: there is no kernel yet.
        """
        if self.ended:
            self._pump.renew()
            self.held.clear()

    def close(self) -> None:
        """End the session: its requests are cancelled and its handles closed."""
        self._pump.patience = 0.0
        if not self.ended:
            with contextlib.suppress(LlmosError):
                self.call(CloseHandle(handle=self.welcome.handle), timeout=GOODBYE)
        self._pump.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
