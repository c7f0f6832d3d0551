"""The one loop: the programs' socket, descriptors of hosts and children, timers. Everything else is called from here.

Not asyncio, and epoll on the socket's own descriptor instead of `zmq.Poller`: both add less to each message, see
`docs/benchmarks/README.md`. One thread, so no locks.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import zmq
import zmq.backend

from llmos.syscalls.errors import BadCall, LlmosError
from llmos.syscalls.wire import LIMITS, error_frames

from .config import KernelConfig
from .core import Kernel
from .pending import Runner
from .session import Peer

TICK_NS = 1_000_000_000
LAST_WORDS_MS = 500
"""How long a clean stop waits for the last answers to leave."""
_BURST = 64
_QUEUE = 100_000
_LAG_S = 0.1
# Plain integers: pyzmq's enumerations cost more than the calls they are passed to.
_EVENTS, _POLLIN, _NOBLOCK, _MORE = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
_OWN_ROUTE = b"\0"
"""Routing ids that libzmq makes begin with a zero byte; a program may not choose such a one (zmq_setsockopt(3))."""

Identify = Callable[[zmq.Frame], Peer]


def peer_of(frame: zmq.Frame) -> Peer:
    """Who sent a frame, as the operating system attests it (SO_PEERCRED, read by libzmq at accept)."""
    return _peer_at(str(frame.get("Peer-Address")))


@lru_cache(4096)
def _peer_at(address: str) -> Peer:
    return Peer.parse(address)


class Server:
    """Descriptors and time for one kernel.

    Args:
        config: where to listen and everything else.
        endpoint: clients' endpoint; `ipc://` of the configured path by default.
        identify: reads the peer from a frame; only the `inproc` transport of tests brings its own.
    """

    def __init__(
        self,
        config: KernelConfig,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        endpoint: str | None = None,
        identify: Identify = peer_of,
        clock: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], float] = time.time,
        listen_fd: int | None = None,
    ) -> None:
        self._context = context or zmq.Context()
        self._own_context = context is None
        self._identify = identify
        self._clock = clock
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._parked: dict[bytes, list[Sequence[bytes]]] = {}
        self._poll = select.epoll()
        paths = config.paths
        self._clients = self._router(endpoint or f"ipc://{paths.socket}", listen_fd)
        self._send_frame = partial(zmq.backend.Socket.send, self._clients)
        self._may_stay_awake = len(os.sched_getaffinity(0)) > 1
        self._settled = False
        """No message waits, and the descriptor will tell of the next one."""
        self._clients_fd = int(self._clients.getsockopt(zmq.FD))
        self._poll.register(self._clients_fd, select.EPOLLIN)
        if endpoint is None and listen_fd is None:
            paths.socket.chmod(0o666 if config.listen.shared else 0o600)
        self.stopping = False
        self._deadline = 0
        runner = Runner(clock)
        self.kernel = Kernel(config, runner, self, wall, self.send_client)
        self._runner = runner
        self._next_tick = clock() + TICK_NS

    def _router(self, endpoint: str, listen_fd: int | None) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.router_mandatory = True
        socket.maxmsgsize = LIMITS.message_bytes + 1024
        socket.sndhwm = socket.rcvhwm = _QUEUE
        if listen_fd is not None:
            socket.setsockopt(zmq.USE_FD, listen_fd)
        socket.bind(endpoint)
        return socket

    # ---- file descriptors (Watcher)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._callbacks[fd] = callback
        self._poll.register(fd, select.EPOLLIN)

    def watch_room(self, fd: int, wanted: bool) -> None:
        self._poll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def unwatch(self, fd: int) -> None:
        if self._callbacks.pop(fd, None) is not None:
            self._poll.unregister(fd)

    # ---- sending

    def send_client(self, route: bytes, frames: Sequence[bytes]) -> bool:
        """Send to a program; False when its connection is gone. What does not fit its queue now is kept for later."""
        parked = self._parked.get(route)
        if parked is not None:
            parked.append(frames)
            return True
        self._settled = False
        try:
            _send(self._send_frame, route, frames)
        except zmq.Again:
            self._parked[route] = [frames]
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._runner.after(0, lambda: self.kernel.sessions.lost_route(route))
            return False
        return True

    def _unpark(self) -> None:
        """Try again what a full queue refused; a program that never reads is ended by its session's limit."""
        waiting, self._parked = self._parked, {}
        for route, messages in waiting.items():
            for frames in messages:
                self.send_client(route, frames)
            if len(self._parked.get(route, ())) > _QUEUE:
                del self._parked[route]
                session = self.kernel.routes.get(route)
                if session is not None:
                    self.kernel.sessions.close(session, "it does not read its answers")

    # ---- receiving

    def _receive_clients(self) -> None:
        """Up to a burst of messages.

        A routing id alone says nothing: whoever writes ZMTP by hand can take the id of a connection that has just
        ended, whatever the library lets programs choose.
        """
        socket, dispatcher = self._clients, self.kernel.dispatcher
        for taken in range(_BURST):
            if taken and not self._more():
                return
            try:
                frame = first = socket.recv(_NOBLOCK, copy=False)
            except zmq.Again:
                self._settled = True
                return
            rest = []
            while frame.more:
                frame = socket.recv(copy=False)
                rest.append(frame.bytes)
            route = first.bytes
            if route[:1] != _OWN_ROUTE:
                error = BadCall("this connection chose its own routing id: leave that to the library")
                self.send_client(route, error_frames(0, error))
                continue
            peer = self._peer(first)
            if peer is not None:
                dispatcher.receive(route, peer, rest)
                self._runner.run(self._clock())

    def _more(self) -> bool:
        """Whether messages wait. The socket's descriptor tells of a new one only once, and sending may take that
        away (zmq_getsockopt(3), ZMQ_FD): so one has to ask, unless nothing was sent since the answer was no."""
        events: int = self._clients.getsockopt(_EVENTS)  # type: ignore[assignment]  # bytes only for other options
        self._settled = not events & _POLLIN
        return not self._settled

    def _peer(self, frame: zmq.Frame) -> Peer | None:
        try:
            return self._identify(frame)
        except (ValueError, zmq.ZMQError):
            self.kernel.log("server", "a message without a verifiable sender was dropped", level="warning")
            return None

    # ---- the loop

    def run(self) -> None:
        """Serve until stopped and everything of ours has ended."""
        while not (self.stopping and (self.kernel.idle or self._clock() >= self._deadline)):
            self.turn()
        self.kernel.end_requests()
        self._clients.linger = LAST_WORDS_MS

    def turn(self) -> None:
        """Wait for something to happen and handle it."""
        clients = not self._settled and self._more()
        events = self._poll.poll(0) if clients else self._wait()
        began = self._clock()
        waiting = [(fd, self._callbacks.get(fd)) for fd, _event in events]
        for fd, callback in waiting:
            if fd == self._clients_fd:
                clients = True
            elif callback is not None and self._callbacks.get(fd) is callback:  # not closed, nor used anew, meanwhile
                callback()
        if clients:
            self._receive_clients()
        now = self._clock()
        self._runner.run(now)
        if now >= self._next_tick:
            self._next_tick = now + TICK_NS
            self.kernel.tick(now)
        self.kernel.flush()
        if self._parked:
            self._unpark()
        self._lag(began)

    def _wait(self) -> list[tuple[int, int]]:
        """Descriptors with something to tell. Falling asleep and waking take longer than what comes next after a call
        to a host, so for a moment the loop stays awake, where there is another core for the host."""
        while self._may_stay_awake and self._clock() < self._runner.awake_until:
            if events := self._poll.poll(0):
                return events
        return self._poll.poll(self._timeout())

    def _lag(self, began: int) -> None:
        seconds = (self._clock() - began) / 1e9
        self.kernel.instruments.loop_lag.observe(seconds)
        if seconds > _LAG_S:
            self.kernel.log("server", f"one turn of the loop took {seconds:.3f} s", level="warning")

    def _timeout(self) -> float:
        """Seconds until the next timer or tick."""
        if self._parked:
            return 0.005
        due = self._next_tick
        timer = self._runner.next_timer()
        if timer is not None:
            due = min(due, timer)
        return max(0.0, (due - self._clock()) / 1e9)

    def stop(self, grace_s: float | None = None) -> None:
        """Drain: no new sessions, hosts and programs end; `run` returns when they have, or after the grace time."""
        if self.stopping:
            return
        self.stopping = True
        limits = self.kernel.config.limits
        grace = limits.drain_s + 5 if grace_s is None else grace_s
        self._deadline = self._clock() + int(grace * 1e9)
        self.kernel.log("kernel", "the kernel is stopping")
        self.kernel.drain()

    def hurry(self) -> None:
        """Stop waiting for what still runs."""
        self._deadline = self._clock()

    def close(self) -> None:
        """Give sockets, buffers and files back."""
        self.kernel.close()
        self._poll.close()
        self._clients.close()
        if self._own_context:
            self._context.term()


def _send(send: Callable[[bytes, int], object], route: bytes, frames: Sequence[bytes]) -> None:
    """Send one message; only the first part of it can fail, when the peer is gone or its queue is full."""
    send(route, _MORE)
    for frame in frames[:-1]:
        send(frame, _MORE)
    send(frames[-1], _NOBLOCK)


def self_test(context: zmq.Context[zmq.Socket[bytes]], folder: Path) -> None:
    """Check that libzmq reports peers truthfully: a connection of our own must show our own pid and uid.

    Raises:
        LlmosError: it does not; without that there is no identity and the kernel must not start.
    """
    path = folder / "selftest.sock"
    server, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    server.linger = client.linger = 0
    try:
        server.bind(f"ipc://{path}")
        client.connect(f"ipc://{path}")
        client.send(b"?")
        if not server.poll(2000):
            raise LlmosError("the identity self-test got no message")
        peer = peer_of(server.recv(copy=False))
        if peer != Peer(os.getuid(), os.getgid(), os.getpid()):
            raise LlmosError(f"the identity self-test saw {peer}, not this process: peers cannot be verified here")
    finally:
        server.close()
        client.close()
        path.unlink(missing_ok=True)
