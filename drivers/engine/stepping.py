"""A long function of somebody else's, run step by step: it goes on only while the caller waits for its next halt.

It has a thread of its own, but never runs beside the caller: one of the two always waits for the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

T = TypeVar("T")


class Halted(BaseException):
    """Raised inside the function to end it early."""


class Stepped(Generic[T]):
    """Runs `work(halt)`; each call of `halt` inside it gives the turn back to the caller."""

    def __init__(self, work: Callable[[Callable[[], None]], T]) -> None:
        self._work = work
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._ended = self._closing = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="stepped", daemon=True)
        self._thread.start()

    def advance(self) -> bool:
        """Let it run to its next halt or its end; says whether it has ended. Raises what it raised."""
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error
        return self._ended

    @property
    def result(self) -> T:
        """What it returned, once it has ended."""
        assert self._ended and self._result is not None
        return self._result

    def close(self) -> None:
        """End it where it halts, if it has not ended yet."""
        self._closing = True
        self._go.release()
        self._thread.join()

    def _run(self) -> None:
        self._go.acquire()
        with _Kept(self):
            if not self._closing:
                self._result = self._work(self._halt)
        self._ended = True
        self._back.release()

    def _halt(self) -> None:
        self._back.release()
        self._go.acquire()
        if self._closing:
            raise Halted


class _Kept(AbstractContextManager[None]):
    """Keeps what the function raises for the caller, who raises it."""

    def __init__(self, stepped: Stepped[T]) -> None:
        self._stepped = stepped

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, Halted):
            self._stepped._error = error
        return True
