"""A host's connection to the kernel: nothing urgent waits behind work, and nothing short pays for that.

Two threads share the socket, one at a time. While the work thread waits or does something short it uses the socket
itself: a thread between would double the time of a small call. Before long work it lends the socket to the I/O thread,
which answers control calls at once, queues the others, and sends what the work thread says meanwhile. Neither waits for
a kernel that does not read. Both watch the parent: without a kernel this process has no purpose.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llmos.syscalls.driver import HOST_CALLS, HostCancel, HostCredit, HostStats, Stats
from llmos.syscalls.errors import BadCall, LlmosError
from llmos.syscalls.frames import Decoder, Outbox
from llmos.syscalls.spec import check
from llmos.syscalls.types import Done, Value
from llmos.syscalls.wire import MessageKind, Reply, error_frames, pack, unpack_body, unpack_header

from .hookspecs import Send
from .parent import EXIT_ORPHAN

_LINGER_S = 1.0
_READ_BYTES = 1 << 16


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
    """The connection. Its methods belong to the work thread.

    Args:
        fd: the inherited end of the kernel's socket pair; programs that this process starts do not get it.
        parent: process id of the kernel.
    """

    def __init__(self, fd: int, parent: int) -> None:
        self._inbox: deque[Incoming | Stop] = deque()
        self._outbox: deque[Sequence[bytes]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._parent = os.pidfd_open(parent)
        self._control: Control = _Nobody()
        os.set_inheritable(fd, False)
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._decoder = Decoder()
        self._unsent = Outbox()
        """Waits for a slow kernel instead of blocking the control lane; credit bounds it at its source."""
        self._full = False
        self._poller = select.poll()
        for source in (fd, self._wake, self._parent):
            self._poller.register(source, select.POLLIN)
        self.transmit: Send = self._send
        """Takes a message to be sent; may be replaced before the first request."""
        self._lent = False
        self._recalled = False
        self._may_serve = threading.Lock()
        self._may_serve.acquire()
        self._handed_back = threading.Lock()
        self._handed_back.acquire()
        self._closed = False
        self._thread = threading.Thread(target=self._serve_when_lent, name="io", daemon=True)
        self._thread.start()

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
            self._flush()

    def lend(self) -> None:
        """Something long begins: the I/O thread takes over."""
        if not self._lent:
            self._lent = True
            self._may_serve.release()

    def take_back(self) -> None:
        """Use the socket here again; what was posted goes out before what follows."""
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
        """End, once what was posted is sent, if the kernel reads."""
        self.take_back()
        self._closed = True
        self._may_serve.release()
        self._thread.join()
        self._socket.settimeout(_LINGER_S)
        with contextlib.suppress(OSError):
            while self._unsent:
                self._unsent.sent(self._socket.sendmsg(self._unsent.buffers()))
        self._socket.close()
        os.close(self._wake)
        os.close(self._parent)

    def _serve_when_lent(self) -> None:
        while self._may_serve.acquire() and not self._closed:
            while not self._recalled:
                self._wait(None)
            self._send_waiting()
            self._handed_back.release()

    def _wait(self, timeout_s: float | None) -> None:
        """Take in what comes within the time; None waits until something does. On whichever thread has the socket."""
        for source, event in self._poller.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)):
            if source == self._parent:
                os._exit(EXIT_ORPHAN)
            elif source == self._wake:
                os.eventfd_read(self._wake)
                self._send_waiting()
            elif event & ~select.POLLOUT:
                self._receive_waiting()
            else:
                self._flush()

    def _send(self, frames: Sequence[bytes]) -> None:
        self._unsent.add(frames)

    def _send_waiting(self) -> None:
        while self._outbox:
            self.transmit(self._outbox.popleft())
        self._flush()

    def _flush(self) -> None:
        """Send what the kernel has room for, and watch for more room if that was not all."""
        try:
            while self._unsent:
                self._unsent.sent(self._socket.sendmsg(self._unsent.buffers()))
        except BlockingIOError:
            pass
        except OSError:
            os._exit(EXIT_ORPHAN)
        if bool(self._unsent) is not self._full:
            self._full = not self._full
            self._poller.modify(self._socket, select.POLLIN | (select.POLLOUT if self._full else 0))

    def _receive_waiting(self) -> None:
        while data := self._read():
            for header, body in self._decoder.feed(data):
                self._receive(header, body)
            if len(data) < _READ_BYTES:
                break
        self._flush()

    def _read(self) -> bytes:
        """What has come; nothing when that was all. The end of the kernel is the end of this process."""
        try:
            return self._socket.recv(_READ_BYTES) or os._exit(EXIT_ORPHAN)
        except BlockingIOError:
            return b""
        except ConnectionError:
            os._exit(EXIT_ORPHAN)

    def _receive(self, header: bytes, body: bytes) -> None:
        kind, number, name = unpack_header(header)
        if kind is not MessageKind.CALL:
            raise BadCall(f"a host takes calls; the kernel sent {kind.value}")
        answer = _CONTROL_CALLS.get(name)
        if answer is None:
            self._inbox.append(Incoming(number, name, body))
            return
        try:
            value = answer(self._control, check(HOST_CALLS[name], unpack_body(body)))
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
