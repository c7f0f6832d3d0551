"""Waiting without blocking: futures, the coroutines that await them, and timers.

The kernel has one loop and one thread. A handler that must wait for a driver is a coroutine; it is resumed from the
loop, never from inside the event that woke it, so no handler ever sees the tables change under its feet. This is the
small part of asyncio that the kernel needs, without its cost per message; time comes in as an argument.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from itertools import count
from typing import Any, Generic, TypeVar

from llmos.syscalls.errors import LlmosError

T = TypeVar("T")
Done = Callable[[Any, LlmosError | None], None]


class Future(Generic[T]):
    """A result that arrives later, once. Awaiting it gives the result or raises its error."""

    __slots__ = ("_error", "_runner", "_value", "_waiters", "done")

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._value: T | None = None
        self._error: LlmosError | None = None
        self._waiters: list[Job] = []
        self.done = False

    def set(self, value: T) -> None:
        """Deliver the result; a future that is done already ignores it."""
        self._finish(value, None)

    def fail(self, error: LlmosError) -> None:
        """Deliver an error instead."""
        self._finish(None, error)

    def _finish(self, value: T | None, error: LlmosError | None) -> None:
        if self.done:
            return
        self.done, self._value, self._error = True, value, error
        waiters, self._waiters = self._waiters, []
        for job in waiters:
            self._runner.wake(job)

    def failed_with(self, kind: type[LlmosError]) -> bool:
        """Whether it is done and its error is of that kind."""
        return isinstance(self._error, kind)

    def wait(self, job: Job) -> None:
        self._waiters.append(job)

    def forget(self, job: Job) -> None:
        if job in self._waiters:
            self._waiters.remove(job)

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # done: set() was given a T

    def __await__(self) -> Generator[Future[T], None, T]:
        while not self.done:
            yield self
        return self.result()


class Job:
    """A coroutine on its way. Errors of the contract end it and go to `done`; any other exception ends the kernel."""

    __slots__ = ("_coroutine", "_done", "_error", "_waiting", "finished", "queued")

    def __init__(self, coroutine: Coroutine[Future[Any], None, Any], done: Done) -> None:
        self._coroutine = coroutine
        self._done = done
        self._waiting: Future[Any] | None = None
        self._error: LlmosError | None = None
        self.finished = False
        self.queued = False

    def step(self) -> None:
        """Run until the next wait or the end."""
        self.queued = False
        error, self._error = self._error, None
        try:
            awaited = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration as stop:
            self.finished = True
            self._done(stop.value, None)
        except LlmosError as failure:
            self.finished = True
            self._done(None, failure)
        else:
            self._waiting = awaited
            awaited.wait(self)

    def interrupt(self, error: LlmosError) -> None:
        """Make the wait raise `error` at the next step."""
        self._error = error
        if self._waiting is not None:
            self._waiting.forget(self)

    def close(self) -> None:
        """Drop the coroutine where it stands; its `finally` clauses run."""
        self.finished = True
        self._coroutine.close()


class Timer:
    """A callback at a time; `cancel` makes it do nothing."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


async def _undo(future: Future[T], undo: Callable[[T], object]) -> None:
    undo(await future)


class Runner:
    """Resumes jobs and fires timers when the loop says so."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self._ready: deque[Job] = deque()
        self._timers: list[tuple[int, int, Timer]] = []
        self._numbers = count()
        self.awake_until = 0
        """Until then (nanoseconds of the clock) something is so likely to come that the loop does not sleep."""

    def expect(self, within_ns: int) -> None:
        """Something is likely to come so soon."""
        self.awake_until = self.clock() + within_ns

    def future(self) -> Future[Any]:
        return Future(self)

    def spawn(self, coroutine: Coroutine[Future[Any], None, Any], done: Done) -> Job:
        """Start a coroutine; it runs at once until its first wait."""
        job = Job(coroutine, done)
        job.step()
        return job

    def detached(self, coroutine: Coroutine[Future[Any], None, T]) -> Future[T]:
        """Run a coroutine to its end, even if whoever awaits the result is interrupted."""
        result: Future[T] = self.future()
        self.spawn(coroutine, lambda value, error: result.set(value) if error is None else result.fail(error))
        return result

    async def kept(self, future: Future[T], undo: Callable[[T], object]) -> T:
        """Await a future. If the wait is interrupted, `undo` gets the result that comes later."""
        try:
            return await future
        except LlmosError:
            self.spawn(_undo(future, undo), lambda _value, _error: None)
            raise

    def wake(self, job: Job) -> None:
        if not job.queued and not job.finished:
            job.queued = True
            self._ready.append(job)

    def interrupt(self, job: Job, error: LlmosError) -> None:
        """Raise `error` where the job waits."""
        if not job.finished:
            job.interrupt(error)
            self.wake(job)

    def at(self, when: int, callback: Callable[[], None]) -> Timer:
        """Call back at `when` (nanoseconds of the clock) or soon after."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self.at(self.clock() + int(seconds * 1e9), callback)

    def next_timer(self) -> int | None:
        """When the next timer is due; None when there is none."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def run(self, now: int) -> None:
        """Fire what is due and resume what is ready, until nothing is left to do."""
        while True:
            when = self.next_timer()
            if when is not None and when <= now:
                callback = heapq.heappop(self._timers)[2].callback
                assert callback is not None  # next_timer() has dropped the cancelled ones
                callback()
            elif self._ready:
                job = self._ready.popleft()
                if not job.finished:
                    job.step()
            else:
                return
