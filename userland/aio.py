"""The async client: the same core as the sync one, waited for in an asyncio loop.

Sockets are watched by their descriptors (`loop.add_reader`); zmq's own asyncio layer would cost half the speed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

import zmq

from llmos.syscalls.calls import CloseHandle
from llmos.syscalls.errors import Cancelled, LlmosError
from llmos.syscalls.spec import Call, Stream
from llmos.syscalls.types import Handle, Welcome

from . import bulk
from .client import GOODBYE, program_name
from .flow import Flow, OnProgress
from .join import PATIENCE, Caller, give_up, join, settle
from .link import Link, NoKernel
from .places import kernel_address
from .protocol import Frames, Pending, Protocol

R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F")

_AFTER_CANCEL = 2.0
"""Seconds that a cancelled task waits for the answer to its cancel."""


class AsyncClient:
    """A session with the kernel, for one event loop. Made by `AsyncClient.connect`; parameters as for `Client`."""

    def __init__(self, link: Link, caller: Caller) -> None:
        self._core = Protocol()
        self._link = link
        self._caller = caller
        self._patience = caller.patience
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._watched: list[int] = []
        self._joining = False
        self._recovering: asyncio.Task[None] | None = None
        self.held: Counter[Handle] = Counter()
        """How many objects of this program share each handle."""

    @classmethod
    async def connect(
        cls,
        address: str = "",
        *,
        program: str = "",
        tenant: str = "",
        patience: float = PATIENCE,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        last_words: Callable[[], str] | None = None,
    ) -> AsyncClient:
        """Open a session.

        Raises:
            NoKernel: nobody listens at the address.
            Denied: the kernel's policy does not let this user in.
        """
        caller = Caller(program or program_name(), tenant, patience, last_words)
        self = cls(Link(address or kernel_address(), context), caller)
        try:
            self._core.renewed(await self._join(0.0))
        except BaseException:
            self._shut()
            raise
        return self

    # ---- calls

    async def call(
        self, request: Call[R], *, timeout: float | None = None, on_progress: OnProgress | None = None
    ) -> R:
        """Make a call and wait for its result. Cancelling the task cancels the request; the connection stays usable.

        Args:
            timeout: seconds; becomes the deadline of the call.
            on_progress: called with each `Progress` of long work, in the calling task.

        Raises:
            LlmosError: what the call ended with.
        """
        if bulk.is_bulky(request):
            moved = bulk.with_timeout(request, timeout)
            result = await self.run(bulk.send(moved, self.welcome.system, on_progress))
        else:
            pending = self.start(request, timeout, on_progress)
            await self.wait(pending)
            result = pending.result()
        return await self.run(bulk.fetch(result)) if bulk.is_elsewhere(result) else result

    async def stream(
        self, request: Call[Stream[T, F]], *, timeout: float | None = None
    ) -> AsyncStreamReader[T, F]:
        """Start a streaming call: iterate over its items with `async for`, then await `.result()`."""
        buffers: list[Handle] = []
        if bulk.is_bulky(request):
            request, buffers = await self.run(bulk.move(request, self.welcome.system))
        return AsyncStreamReader(self, self.start(request, timeout), buffers)

    async def run(self, flow: Flow[R]) -> R:
        """Run a flow of several calls to its end."""
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                step = flow.send(answer) if error is None else flow.throw(error)
            except StopIteration as stop:
                result: R = stop.value
                return result
            try:
                answer, error = await self.call(step.call, on_progress=step.on_progress), None
            except (LlmosError, asyncio.CancelledError) as raised:
                answer, error = None, raised

    @property
    def welcome(self) -> Welcome:
        """What `hello` answered."""
        assert self._core.welcome is not None
        return self._core.welcome

    @property
    def ended(self) -> str:
        """Why the session is over; empty while it lasts."""
        return self._core.ended

    # ---- requests, for the stream reader

    def start(
        self, request: Call[Any], timeout: float | None = None, on_progress: OnProgress | None = None
    ) -> Pending[Any]:
        """Start a request; it leaves now."""
        pending, frames = self._core.start(request, timeout, on_progress)
        self._send([frames])
        return pending

    async def wait(self, pending: Pending[Any], whole: bool = True) -> None:
        """Until the request has ended or, unless `whole`, a stream has an item."""
        try:
            await self._wait(pending, whole)
        except asyncio.CancelledError:
            self.cancel(pending)
            try:
                async with asyncio.timeout(_AFTER_CANCEL):
                    await self._wait(pending, whole=True)
            except TimeoutError:
                self.abandon(pending)
                pending.finish(None, Cancelled(f"{pending.spec.name} was cancelled"))
            raise

    async def _wait(self, pending: Pending[Any], whole: bool) -> None:
        while not (pending.done or (pending.items and not whole)):
            changed = self._loop.create_future()
            pending.notify = partial(_ring, changed)
            try:
                if pending.expires is None:
                    await changed
                else:
                    async with asyncio.timeout((pending.expires - self._core.clock()) / 1e9):
                        await changed
            except TimeoutError:
                self._send(self._core.expire(pending))
            finally:
                pending.notify = None
            pending.report()

    def take(self, pending: Pending[Any]) -> Any:
        """The next item of a stream; there must be one."""
        item, credit = self._core.take(pending)
        if credit is not None:
            self._send([credit])
        return item

    def cancel(self, pending: Pending[Any]) -> None:
        """Ask the kernel to end a request; its answer still comes."""
        self._send(self._core.cancel(pending))

    def abandon(self, pending: Pending[Any]) -> None:
        """Cancel a request that nobody waits for any more."""
        self._send(self._core.abandon(pending))

    # ---- the connection

    def _send(self, messages: list[Frames]) -> None:
        """While the connection is made anew nothing is sent: requests are sent again from the core's list."""
        if self._link.is_open and not self._joining:
            for frames in messages:
                self._link.send(frames)
            self._loop.call_soon(self._readable)

    def _readable(self) -> None:
        """Read everything: zmq's descriptor signals changes, not that something is there."""
        self._arrived.set()
        if self._link.is_open and not self._joining:
            while self._link.read():
                self._core.receive(self._link.inbox.popleft(), self._link.inbox.popleft())

    def _monitored(self) -> None:
        self._arrived.set()
        if self._link.is_open and not self._joining and self._link.broken():
            self._readable()
            self._unwatch()
            self._link.shut()
            if not self._core.ended:
                self._recovering = self._loop.create_task(self._recover())

    async def _recover(self) -> None:
        try:
            welcome = await self._join(self._patience)
        except (NoKernel, LlmosError) as error:
            ask = self._caller.last_words
            give_up(self._core, error, await asyncio.to_thread(ask) if ask is not None else "")
            return
        self._send(settle(self._core, welcome))

    async def renew(self) -> None:
        """Go on in a new session after the old one ended with its kernel; handles of the old one stay invalid.

        Raises:
            NoKernel: there is no kernel yet.
        """
        if not self._core.ended:
            return
        if not self._link.is_open:
            self._core.welcome = await self._join(self._patience)
        self._core.renewed(self.welcome)
        self.held.clear()

    async def _join(self, patience: float) -> Welcome:
        self._joining = True
        try:
            return await self._drive(join(self._link, self._core, self._caller, patience))
        finally:
            self._joining = False
            self._loop.call_soon(self._monitored)
            self._loop.call_soon(self._readable)

    async def _drive(self, joining: Generator[float, None, Welcome]) -> Welcome:
        while True:
            self._arrived.clear()
            try:
                seconds = next(joining)
            except StopIteration as stop:
                welcome: Welcome = stop.value
                return welcome
            finally:
                self._watch()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()

    def _watch(self) -> None:
        self._unwatch()
        if self._link.is_open:
            readers = {self._link.socket: self._readable, self._link.monitor: self._monitored}
            for source, reader in readers.items():
                self._watched.append(source.fileno())
                self._loop.add_reader(source.fileno(), reader)

    def _unwatch(self) -> None:
        for fd in self._watched:
            self._loop.remove_reader(fd)
        self._watched.clear()

    def _shut(self) -> None:
        self._core.lost("this client is closed")
        self._unwatch()
        if self._recovering is not None:
            self._recovering.cancel()
            self._recovering = None
        self._link.close()

    async def close(self) -> None:
        """End the session: its requests are cancelled and its handles closed."""
        self._patience = 0.0
        if not self.ended:
            with contextlib.suppress(LlmosError):
                await self.call(CloseHandle(handle=self.welcome.handle), timeout=GOODBYE)
        self._shut()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _ring(changed: asyncio.Future[None]) -> None:
    if not changed.done():
        changed.set_result(None)


class AsyncStreamReader(Generic[T, F]):
    """Iterates over the items of a stream with `async for`; `await result()` is what its end carries.

    Leaving its `async with` block, or dropping it, cancels the request.
    """

    def __init__(self, client: AsyncClient, pending: Pending[F], buffers: list[Handle]) -> None:
        self._client = client
        self._pending = pending
        self._buffers = buffers
        self._told = False

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        pending = self._pending
        if not pending.items and not pending.done:
            await self._client.wait(pending, whole=False)
        if pending.items:
            item: T = self._client.take(pending)
            return item
        self._free()
        if pending.error is not None and not self._told:
            self._told = True
            raise pending.error
        raise StopAsyncIteration

    async def result(self) -> F:
        """The final result; waits for the end, passing over items that were not read."""
        while not self._pending.done:
            await self._client.wait(self._pending, whole=False)
            while self._pending.items:
                self._client.take(self._pending)
        self._free()
        return self._pending.result()

    @property
    def ready(self) -> bool:
        """Whether an item is here already, so that the next step waits for nothing."""
        return bool(self._pending.items)

    @property
    def request(self) -> str:
        """The stable id of the request, once it is done."""
        return self._pending.request

    def cancel(self) -> None:
        """Ask the kernel to end the stream early; iteration goes on to its end, and `result` says how far it came."""
        self._client.cancel(self._pending)

    async def close(self) -> None:
        """Cancel the request unless it has ended, and wait for its end."""
        if not self._pending.done:
            self._client.cancel(self._pending)
            await self._client.wait(self._pending)
        self._free()

    def _free(self) -> None:
        buffers, self._buffers = self._buffers, []
        if not self._client.ended:
            for buffer in buffers:
                self._client.start(CloseHandle(handle=buffer))

    async def __aenter__(self) -> AsyncStreamReader[T, F]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if not self._pending.done:
            self._client.abandon(self._pending)
