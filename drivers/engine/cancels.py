"""Requests that somebody wants to end: told on any thread, taken by the one that steps."""

from __future__ import annotations

from queue import Empty, SimpleQueue


class Cancels:
    """The ids of requests to be ended."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[str] = SimpleQueue()

    def put(self, request: str) -> None:
        """End a request with the next step. Any thread."""
        self._asked.put(request)

    def take(self) -> set[str]:
        """Those that were told since the last time."""
        taken = set()
        while True:
            try:
                taken.add(self._asked.get_nowait())
            except Empty:
                return taken
