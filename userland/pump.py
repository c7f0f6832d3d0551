"""Moves messages between one connection and the threads of a program that wait for answers.

Whoever waits does the I/O: a thread that waits for an answer takes the socket, sends what lies in the outbox, and hands
every message to the protocol core; threads that wait meanwhile are woken when something arrived. So a program with one
thread pays for no second one. Only the thread named by `_pumper` touches the link; the core is touched under `_lock`,
which is reentrant because the garbage collector may abandon a stream at any point.

Ctrl-C: a wait that is short (`BRIEF_MS`) is cut off where it stands; in a longer one SIGINT is noted, the request is
cancelled, and KeyboardInterrupt follows its answer.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Generator
from typing import Any

from llmos.syscalls.errors import Cancelled, LlmosError
from llmos.syscalls.spec import Call
from llmos.syscalls.types import Welcome

from .flow import OnProgress
from .interrupt import HeldInterrupt
from .join import Caller, give_up, join, settle
from .link import Link, NoKernel
from .protocol import Frames, Pending, Protocol

_AFTER_INTERRUPT_NS = 2_000_000_000
"""How long Ctrl-C waits for the answer to its cancel."""
_RECHECK_MS = 100


class Pump:
    """The blocking side of a client: a link and a core.

    Raises:
        NoKernel: nobody listens at the link's address.
    """

    def __init__(self, link: Link, caller: Caller) -> None:
        self.core = Protocol()
        self.link = link
        self._caller = caller
        self.patience = caller.patience
        self._lock = threading.RLock()
        self._arrived = threading.Condition(self._lock)
        self._outbox: deque[Frames] = deque()
        self._pumper = 0
        self._shared = False
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._closed = False
        try:
            self.core.renewed(self._drive(join(self.link, self.core, caller, 0.0)))
        except BaseException:
            self.close()
            raise

    # ---- requests

    def begin(
        self, request: Call[Any], timeout: float | None = None, on_progress: OnProgress | None = None
    ) -> Pending[Any]:
        """Start a request; it leaves with the next wait."""
        with self._lock:
            pending, frames = self.core.start(request, timeout, on_progress)
            self._outbox.append(frames)
        return pending

    def start(
        self, request: Call[Any], timeout: float | None = None, on_progress: OnProgress | None = None
    ) -> Pending[Any]:
        """Start a request; it leaves now."""
        pending = self.begin(request, timeout, on_progress)
        self._send_now()
        return pending

    def take(self, pending: Pending[Any]) -> Any:
        """The next item of a stream; there must be one."""
        with self._lock:
            item, credit = self.core.take(pending)
        if credit is not None:
            self._post([credit])
        return item

    def cancel(self, pending: Pending[Any]) -> None:
        """Ask the kernel to end a request; its answer still comes."""
        with self._lock:
            frames = self.core.cancel(pending)
        self._post(frames)

    def abandon(self, pending: Pending[Any]) -> None:
        """Cancel a request that nobody waits for any more."""
        with self._lock:
            frames = self.core.abandon(pending)
        self._post(frames)

    def _post(self, messages: list[Frames]) -> None:
        if messages and not self._closed:
            self._outbox.extend(messages)
            self._send_now()

    def _send_now(self) -> None:
        """Send the outbox, or have the thread send it that is at the socket."""
        if self._take_turn(nested=True):
            try:
                self._flush()
            finally:
                self._leave_turn()
        else:
            self.wake()

    # ---- waiting

    def wait(self, pending: Pending[Any], whole: bool = True) -> None:
        """Until the request has ended or, unless `whole`, a stream has an item.

        Raises:
            KeyboardInterrupt: the request was cancelled and has ended.
        """
        interrupts = 0
        try:
            try:
                if self._wait_briefly(pending, whole):
                    return
            except KeyboardInterrupt:
                interrupts = 1
            self._wait_long(pending, whole, interrupts)
        except BaseException:
            if not pending.done:
                self.abandon(pending)
            raise

    def _wait_briefly(self, pending: Pending[Any], whole: bool) -> bool:
        """The quick way, while answers come at once and no other thread waits. False when it takes longer."""
        while not (pending.done or (pending.items and not whole)):
            if self._shared or not self._take_turn():
                return False
            try:
                if not self.link.is_open:
                    return False
                self._flush()
                if not self.link.read_soon():
                    return False
                self._deliver()
            finally:
                self._leave_turn()
            pending.report()
        return True

    def _wait_long(self, pending: Pending[Any], whole: bool, interrupts: int) -> None:
        with HeldInterrupt(self.wake, interrupts, self._pipe[1]) as interrupt:
            give_up_at: int | None = None
            while not (pending.done or (pending.items and not whole and not interrupt.count)):
                if interrupt.count and give_up_at is None:
                    interrupts = interrupt.count
                    give_up_at = self.core.clock() + _AFTER_INTERRUPT_NS
                    self.cancel(pending)
                ends = [at for at in (pending.expires, give_up_at) if at is not None]
                left = min(ends) - self.core.clock() if ends else None
                if interrupt.count > interrupts or (left is not None and left <= 0):
                    self._overdue(pending, bool(interrupt.count))
                    break
                self._turn(None if left is None else left // 1_000_000 + 1)
                pending.report()
        if interrupt.count:
            raise KeyboardInterrupt

    def _overdue(self, pending: Pending[Any], interrupted: bool) -> None:
        if interrupted:
            self.abandon(pending)
            pending.finish(None, Cancelled(f"{pending.spec.name} was interrupted"))
            return
        with self._lock:
            frames = self.core.expire(pending)
        self._post(frames)

    # ---- turns at the socket

    def _take_turn(self, nested: bool = False) -> bool:
        """Whether this thread may use the link now. A turn it seems to have already was cut off by an interrupt, unless
        it is `nested`: the garbage collector runs this inside a turn."""
        me = threading.get_ident()
        with self._lock:
            if self._pumper and (nested or self._pumper != me):
                self._shared = self._shared or self._pumper != me
                return False
            self._pumper = me
            return True

    def _leave_turn(self) -> None:
        if not self._shared:
            self._pumper = 0
            return
        with self._arrived:
            self._pumper = 0
            self._arrived.notify_all()

    def _turn(self, timeout_ms: int | None) -> None:
        """Wait once for anything to happen: at the socket, or for the thread that is there."""
        if not self._take_turn():
            if self._outbox:
                self.wake()
            with self._arrived:
                if self._pumper:
                    self._arrived.wait(min(_RECHECK_MS, timeout_ms or _RECHECK_MS) / 1000)
            return
        try:
            if self.link.is_open:
                self._flush()
                if self.link.wait(timeout_ms, self._pipe[0]):
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._pipe[0], 4096)
                broken = self.link.broken()
                while self.link.read():
                    self._deliver()
            else:
                broken = True
            if broken:
                self._recover()
        finally:
            self._leave_turn()

    def _flush(self) -> None:
        """Frames leave the outbox after they were sent: an interrupt between the two sends twice, never not at all."""
        while self._outbox and self.link.is_open:
            self.link.send(self._outbox[0])
            self._outbox.popleft()

    def _deliver(self) -> None:
        inbox = self.link.inbox
        with self._lock:
            while len(inbox) >= 2:
                self.core.receive(inbox[0], inbox[1])
                inbox.popleft()
                inbox.popleft()

    def wake(self) -> None:
        """End the wait of the thread at the socket. Safe in a signal handler."""
        with contextlib.suppress(OSError):
            os.write(self._pipe[1], b"w")

    # ---- the connection

    def _recover(self) -> None:
        """The connection broke: make it anew, and let every request in flight go on or end."""
        self.link.shut()
        if self.core.ended:
            return
        try:
            welcome = self._drive(join(self.link, self.core, self._caller, self.patience))
        except (NoKernel, LlmosError) as error:
            last_words = self._caller.last_words() if self._caller.last_words is not None else ""
            with self._lock:
                self._outbox.clear()
                give_up(self.core, error, last_words)
            return
        with self._lock:
            self._outbox.clear()
            self._outbox.extend(settle(self.core, welcome))

    def renew(self) -> None:
        """Open a new session after the old one ended.

        Raises:
            NoKernel: there is still no kernel.
        """
        while not self._take_turn():
            self.wake()
        try:
            if self.core.ended and not self._closed:
                if not self.link.is_open:
                    self.core.welcome = self._drive(join(self.link, self.core, self._caller, self.patience))
                assert self.core.welcome is not None
                self.core.renewed(self.core.welcome)
        finally:
            self._leave_turn()

    def _drive(self, joining: Generator[float, None, Welcome]) -> Welcome:
        while True:
            try:
                with self._lock:
                    seconds = next(joining)
            except StopIteration as stop:
                welcome: Welcome = stop.value
                return welcome
            if self.link.is_open:
                self.link.wait(int(seconds * 1000))
            else:
                time.sleep(seconds)

    def close(self) -> None:
        """Close the connection; whatever is in flight ends with PeerGone."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.core.lost("this client is closed")
        while not self._take_turn():
            self.wake()
            with self._arrived:
                self._arrived.wait(_RECHECK_MS / 1000)
        self.link.close()
        pipe, self._pipe = self._pipe, (-1, -1)
        for fd in pipe:
            os.close(fd)
        self._leave_turn()
