"""Answers that are still to come: one result, or a stream of items and then a result."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

from llmos.syscalls.calls import CloseHandle
from llmos.syscalls.types import Handle, Reason

from .protocol import Pending
from .pump import Pump

R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F")


class Answer(Generic[R]):
    """A call in flight."""

    def __init__(self, pump: Pump, pending: Pending[R]) -> None:
        self._pump = pump
        self._pending = pending

    @property
    def done(self) -> bool:
        """Whether the answer is here, as far as messages have been read; `result` reads them."""
        return self._pending.done

    def result(self) -> R:
        """Wait for the result, or raise the error that the call ended with."""
        if not self._pending.done:
            self._pump.wait(self._pending)
        return self._pending.result()

    def cancel(self) -> None:
        """Ask the kernel to end the request; `result` still says how it ended."""
        self._pump.cancel(self._pending)

    @property
    def reasons(self) -> Sequence[Reason]:
        """The kernel's decisions about the request, once it is done."""
        return self._pending.reasons

    @property
    def request(self) -> str:
        """The stable id of the request, once it is done."""
        return self._pending.request


class StreamReader(Generic[T, F]):
    """Iterates over the items of a stream; `result` is what its end carries.

    Leaving the loop early and dropping the reader, or its `with` block, cancels the request.
    """

    def __init__(self, pump: Pump, pending: Pending[F], buffers: list[Handle]) -> None:
        self._pump = pump
        self._pending = pending
        self._buffers = buffers
        self._told = False

    def __iter__(self) -> StreamReader[T, F]:
        return self

    def __next__(self) -> T:
        pending = self._pending
        if not pending.items and not pending.done:
            self._pump.wait(pending, whole=False)
        if pending.items:
            item: T = self._pump.take(pending)
            return item
        self._free()
        if pending.error is not None and not self._told:
            self._told = True
            raise pending.error
        raise StopIteration

    @property
    def result(self) -> F:
        """The final result; waits for the end, passing over items that were not read."""
        while not self._pending.done:
            self._pump.wait(self._pending, whole=False)
            while self._pending.items:
                self._pump.take(self._pending)
        self._free()
        return self._pending.result()

    @property
    def request(self) -> str:
        """The stable id of the request, once it is done."""
        return self._pending.request

    def cancel(self) -> None:
        """Ask the kernel to end the stream early; iteration goes on to its end, and `result` says how far it came."""
        self._pump.cancel(self._pending)

    def close(self) -> None:
        """Cancel the request unless it has ended, and wait for its end."""
        if not self._pending.done:
            self._pump.cancel(self._pending)
            self._pump.wait(self._pending)
        self._free()

    def _free(self) -> None:
        buffers, self._buffers = self._buffers, []
        for buffer in buffers:
            self._pump.start(CloseHandle(handle=buffer))

    def __enter__(self) -> StreamReader[T, F]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        pending: Pending[Any] | None = getattr(self, "_pending", None)
        if pending is not None and not pending.done:
            self._pump.abandon(pending)
