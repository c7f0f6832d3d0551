"""A host's connection to the kernel: nothing urgent waits behind work, and nothing short pays for that.

Two threads share the socket, one at a time. While the work thread waits or does something short it uses the socket
itself: a thread between would double the time of a small call. Before long work it lends the socket to the I/O thread,
which answers control calls at once, queues the others, and sends what the work thread says meanwhile. Both watch the
parent: without a kernel this process has no purpose.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import zmq

from llmos.syscalls.driver import HOST_CALLS, HostCancel, HostCredit, HostStats, Stats
from llmos.syscalls.errors import BadCall, LlmosError
from llmos.syscalls.spec import check
from llmos.syscalls.types import Done, Value
from llmos.syscalls.wire import LIMITS, MessageKind, Reply, error_frames, pack, unpack_body, unpack_header

from .hookspecs import Send

EXIT_ORPHAN = 75
_LINGER_MS = 1000


@dataclass(frozen=True, slots=True)
class Incoming:
    """A call for the work thread, not decoded yet: a large one must not hold up the control lane."""

    number: int
    name: str
    body: bytes


class Stop:
    """In the inbox: the process was asked to end by a signal."""


class Control(Protocol):
    """What the I/O thread may ask while the work thread works."""

    def cancel(self, request: str) -> None:
        """End a request early."""

    def stats(self) -> Stats:
        """What is known without asking the driver."""


class Link:
    """The connection. Its methods belong to the work thread."""

    def __init__(self, endpoint: str, parent: int) -> None:
        self._inbox: deque[Incoming | Stop] = deque()
        self._outbox: deque[Sequence[bytes]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._parent = os.pidfd_open(parent)
        self._control: Control = _Nobody()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LIMITS.message_bytes)
        # Messages wait for a slow kernel here instead of blocking the control lane; credit bounds them at their source.
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.connect(endpoint)
        self._poller = zmq.Poller()
        for source in (self._socket, self._wake, self._parent):
            self._poller.register(source, zmq.POLLIN)
        self.transmit: Send = self._send
        """Puts a message on the wire; may be replaced before the first request."""
        self._lent = False
        self._recalled = False
        self._may_serve = threading.Lock()
        self._may_serve.acquire()
        self._handed_back = threading.Lock()
        self._handed_back.acquire()
        threading.Thread(target=self._serve_when_lent, name="io", daemon=True).start()

    def serve(self, control: Control) -> None:
        """Answer control calls through `control` from now on."""
        self._control = control

    def receive(self, timeout_s: float) -> Incoming | Stop | None:
        """The next call; with time to wait, the socket comes back from the I/O thread."""
        if timeout_s > 0:
            self.take_back()
        if not self._inbox and not self._lent:
            self._wait(timeout_s)
        return self._inbox.popleft() if self._inbox else None

    def post(self, messages: Iterable[Sequence[bytes]]) -> None:
        """Send messages, in order."""
        if self._lent:
            self._outbox.extend(messages)
            os.eventfd_write(self._wake, 1)
        else:
            for frames in messages:
                self.transmit(frames)

    def lend(self) -> None:
        """Something long begins: the I/O thread takes over."""
        if not self._lent:
            self._lent = True
            self._may_serve.release()

    def take_back(self) -> None:
        """Use the socket here again; what was posted has been sent."""
        if self._lent:
            self._recalled = True
            os.eventfd_write(self._wake, 1)
            self._handed_back.acquire()
            self._lent = self._recalled = False

    def stop(self) -> None:
        """Have `receive` return a `Stop` after what is queued; for signal handlers."""
        self._inbox.append(Stop())
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """End, once what was posted is sent. The I/O thread stays parked until the process ends."""
        self.take_back()
        self._socket.close()
        self._context.term()
        os.close(self._wake)
        os.close(self._parent)

    def _serve_when_lent(self) -> None:
        while True:
            self._may_serve.acquire()
            while not self._recalled:
                self._wait(None)
            self._send_waiting()
            self._handed_back.release()

    def _wait(self, timeout_s: float | None) -> None:
        """Take in what comes within the time; None waits until something does. On whichever thread has the socket."""
        for source, _event in self._poller.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)):
            if source == self._parent:
                os._exit(EXIT_ORPHAN)
            elif source == self._wake:
                os.eventfd_read(self._wake)
                self._send_waiting()
            else:
                self._receive_waiting()

    def _send(self, frames: Sequence[bytes]) -> None:
        self._socket.send_multipart(frames)

    def _send_waiting(self) -> None:
        while self._outbox:
            self.transmit(self._outbox.popleft())

    def _receive_waiting(self) -> None:
        while True:
            self._receive(self._socket.recv_multipart())
            if not self._socket.poll(0):
                return

    def _receive(self, frames: Sequence[bytes]) -> None:
        kind, number, name = unpack_header(frames[0])
        if kind is not MessageKind.CALL or len(frames) != 2:
            raise BadCall(f"a host takes calls of two frames; the kernel sent {kind.value} in {len(frames)}")
        answer = _CONTROL_CALLS.get(name)
        if answer is None:
            self._inbox.append(Incoming(number, name, frames[1]))
            return
        try:
            value = answer(self._control, check(HOST_CALLS[name], unpack_body(frames[1])))
        except LlmosError as error:
            self.transmit(error_frames(number, error))
        else:
            self.transmit(pack(MessageKind.REPLY, number, "", Reply(value=value)))


class _Nobody:
    """Stands in until the driver has started."""

    def cancel(self, request: str) -> None:
        """Nothing runs yet."""

    def stats(self) -> Stats:
        return Stats()


def _cancel(control: Control, call: HostCancel) -> Value:
    control.cancel(call.id)
    return Done()


def _stats(control: Control, call: HostStats) -> Value:
    return control.stats()


def _credit(control: Control, call: HostCredit) -> Value:
    """The kernel merges what a slow reader has not paid for, so nothing is held back here."""
    return Done()


_CONTROL_CALLS: Mapping[str, Callable[[Control, Any], Value]] = {"cancel": _cancel, "credit": _credit, "stats": _stats}
