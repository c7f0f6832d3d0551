"""A host's connection to the kernel, on a thread of its own, so that nothing urgent waits behind work.

The I/O thread owns the socket. It answers control calls itself and hands the rest to the work thread through a queue;
the work thread's messages come back through another one, whose wake-up is an eventfd in the same poll. It also watches
the parent: without a kernel this process has no purpose, whatever it is doing.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
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
    """The I/O thread. `inbox` is the work thread's; every other method may be called from it."""

    def __init__(self, endpoint: str, parent: int) -> None:
        self.inbox: SimpleQueue[Incoming | Stop] = SimpleQueue()
        self._outbox: deque[Sequence[bytes]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._parent = os.pidfd_open(parent)
        self._closing = False
        self._control: Control = _Nobody()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LIMITS.message_bytes)
        # Messages wait for a slow kernel here instead of blocking the control lane; credit bounds them at their source.
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.connect(endpoint)
        self.transmit: Send = self._send
        """Puts a message on the wire, on the I/O thread; may be replaced before the first request."""
        self._thread = threading.Thread(target=self._run, name="io", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def serve(self, control: Control) -> None:
        """Answer control calls through `control` from now on."""
        self._control = control

    def post(self, messages: Iterable[Sequence[bytes]]) -> None:
        """Send messages, in order."""
        self._outbox.extend(messages)
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Send what is waiting, then end the thread."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._socket.close()
        self._context.term()
        os.close(self._wake)
        os.close(self._parent)

    def _run(self) -> None:
        poller = zmq.Poller()
        for source in (self._socket, self._wake, self._parent):
            poller.register(source, zmq.POLLIN)
        while True:
            ready = {source for source, _event in poller.poll()}
            if self._parent in ready:
                os._exit(EXIT_ORPHAN)
            if self._wake in ready:
                os.eventfd_read(self._wake)
                self._send_waiting()
                if self._closing:
                    return
            if self._socket in ready:
                self._receive_waiting()

    def _send(self, frames: Sequence[bytes]) -> None:
        self._socket.send_multipart(frames)

    def _send_waiting(self) -> None:
        while self._outbox:
            self.transmit(self._outbox.popleft())

    def _receive_waiting(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._receive(frames)

    def _receive(self, frames: Sequence[bytes]) -> None:
        kind, number, name = unpack_header(frames[0])
        if kind is not MessageKind.CALL or len(frames) != 2:
            raise BadCall(f"a host takes calls of two frames; the kernel sent {kind.value} in {len(frames)}")
        answer = _CONTROL_CALLS.get(name)
        if answer is None:
            self.inbox.put(Incoming(number, name, frames[1]))
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
