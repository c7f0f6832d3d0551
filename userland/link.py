"""One connection to the kernel: a DEALER socket and the monitor that says when it broke."""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import islice

import zmq
import zmq.backend
from zmq.utils.monitor import recv_monitor_message

_NEVER_MS = 3_600_000
"""zmq must not reconnect by itself: a new connection needs a new hello. With no reconnection at all (-1) it would throw
away what had arrived already, so it is told to wait an hour."""

_MORE = (zmq.SNDMORE, 0)

_BROKEN = (
    zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)  # fmt: skip

BRIEF_MS = 20
"""How long `read_soon` waits before the caller has to look at everything else."""


class NoKernel(ConnectionError):
    """No kernel answers at the address."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(
            f"no kernel answers at {address} ({why}). Start one with: llmos serve; or use boot() for a private one. "
            "LLMOS_RUNTIME_DIR names the folder of its socket."
        )
        self.address = address
        self.why = why


class Link:
    """A connection that can be opened again. Not thread-safe: one thread at a time.

    Args:
        address: `ipc://PATH`, or `inproc://NAME` with the context it lives in.
        context: shared with others; without one the link has its own, and ends it.
    """

    def __init__(self, address: str, context: zmq.Context[zmq.Socket[bytes]] | None = None) -> None:
        self.address = address
        self._own = context is None
        self._context: zmq.Context[zmq.Socket[bytes]] = context or zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._poller = zmq.Poller()
        self._broken = False
        self.inbox: deque[bytes] = deque()
        """Frames that were received: header, body, header, body, ..."""

    def open(self) -> None:
        """Connect anew.

        Raises:
            NoKernel: nobody listens at the address.
        """
        self.shut()
        self._probe()
        dealer = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0), (zmq.SNDHWM, 0), (zmq.RCVHWM, 0), (zmq.RECONNECT_IVL, _NEVER_MS), (zmq.RCVTIMEO, BRIEF_MS)
        ):  # fmt: skip
            dealer.setsockopt(option, value)
        self._monitor = dealer.get_monitor_socket(_BROKEN)
        dealer.connect(self.address)
        # Loops in C: no Ctrl-C can come between the two frames of a message, or between a frame and its place.
        self._send = partial(zmq.backend.Socket.send, dealer)
        self._read_soon = iter(dealer.recv, None)
        self._read_now = iter(partial(dealer.recv, zmq.NOBLOCK), None)
        self._socket = dealer
        self._broken = False
        for source in (dealer, self.monitor):
            self._poller.register(source, zmq.POLLIN)

    def _probe(self) -> None:
        """zmq connects in the background and is silent about failure, so ask the operating system first."""
        if not self.address.startswith("ipc://"):
            return
        path = self.address.removeprefix("ipc://")
        if len(os.fsencode(path)) > zmq.IPC_PATH_MAX_LEN:
            raise NoKernel(self.address, f"the path is longer than the {zmq.IPC_PATH_MAX_LEN} bytes of a socket's name")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except OSError as error:
                raise NoKernel(self.address, _EXPLAINED.get(error.errno or 0, str(error))) from None

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    @property
    def socket(self) -> zmq.Socket[bytes]:
        assert self._socket is not None
        return self._socket

    @property
    def monitor(self) -> zmq.Socket[bytes]:
        assert self._monitor is not None
        return self._monitor

    def send(self, frames: Sequence[bytes]) -> None:
        """Send one message; never blocks, because the queue has no limit but the number of requests in flight."""
        deque(map(self._send, frames, _MORE), maxlen=0)

    def read(self) -> bool:
        """Take the next message into `inbox` if it is there."""
        try:
            self.inbox.extend(islice(self._read_now, 2))
        except zmq.Again:
            return False
        return True

    def read_soon(self) -> bool:
        """Take the next message into `inbox` if it comes within `BRIEF_MS`."""
        try:
            self.inbox.extend(islice(self._read_soon, 2))
        except zmq.Again:
            return False
        return True

    def wait(self, timeout_ms: int | None, waking: int = -1) -> bool:
        """Until a message or the end of the connection is there, the time is over, or the descriptor `waking` is
        readable: True for the last."""
        if waking < 0:
            self._poller.poll(timeout_ms)
            return False
        self._poller.register(waking, zmq.POLLIN)
        try:
            return any(source == waking for source, _ in self._poller.poll(timeout_ms))
        finally:
            self._poller.unregister(waking)

    def broken(self) -> bool:
        """Whether the connection has ended. Messages that arrived before can still be read."""
        while self.monitor.poll(0):
            recv_monitor_message(self.monitor)
            self._broken = True
        return self._broken

    def shut(self) -> None:
        """Close the connection; the link can be opened again."""
        self.inbox.clear()
        self._poller = zmq.Poller()
        if self._socket is not None:
            self._socket.disable_monitor()
            self.monitor.close(linger=0)
            self._socket.close(linger=0)
        self._socket = self._monitor = None

    def close(self) -> None:
        """Close for good."""
        self.shut()
        if self._own:
            self._context.destroy(linger=0)


_EXPLAINED = {
    errno.ENOENT: "there is no such socket",
    errno.ECONNREFUSED: "a socket is there, but nobody listens",
    errno.EACCES: "this user may not open it",
}
