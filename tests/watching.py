"""A small loop for tests of what watches file descriptors: epoll, timers, and a limit that fails instead of hanging."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from llmos.kernel.pending import Runner


class Loop:
    """Implements `Watcher` over a real epoll, with a runner on the real clock."""

    def __init__(self) -> None:
        self.runner = Runner(time.monotonic_ns)
        self._poll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._callbacks[fd] = callback
        self._poll.register(fd, select.EPOLLIN)

    def watch_room(self, fd: int, wanted: bool) -> None:
        self._poll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def unwatch(self, fd: int) -> None:
        if self._callbacks.pop(fd, None) is not None:
            self._poll.unregister(fd)

    @property
    def watched(self) -> int:
        return len(self._callbacks)

    def until(self, condition: Callable[[], object], limit_s: float = 20.0) -> None:
        """Turn until the condition holds."""
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, "the condition never held"
            due = self.runner.next_timer()
            wait = 0.5 if due is None else max(0.0, min(0.5, (due - time.monotonic_ns()) / 1e9))
            waiting = [(fd, self._callbacks.get(fd)) for fd, _event in self._poll.poll(wait)]
            for fd, callback in waiting:
                if callback is not None and self._callbacks.get(fd) is callback:  # as the server: not used anew
                    callback()
            self.runner.run(time.monotonic_ns())

    def close(self) -> None:
        self._poll.close()
