"""The async face: the twins of `objects`, with the same methods to be awaited and `async with`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

from llmos.syscalls import types

from . import object_flows, system_flows, why_flows
from .aio import AsyncClient
from .held import ENDED, Cursor, Info, Opened, Region, Whole
from .methods import awaitable, awaitable_new, awaitable_stream


class AsyncObject(Opened[AsyncClient, Info]):
    """Base: a handle that closes with its `async with` block."""

    renews = False

    stat = awaitable(object_flows.stat)
    close = awaitable(object_flows.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncMount(AsyncObject[types.Mount]):
    """A file system in this session's namespace; closing it removes it."""


class AsyncLease(AsyncObject[types.Lease]):
    """Bytes of a device that nobody else gets until it is closed."""


class AsyncBuffer(Region, AsyncObject[types.Buffer]):
    """Shared memory for large inputs and results."""


class AsyncFile(Cursor, AsyncObject[types.File]):
    """An open file. `read` and `write` go on where the last one ended; what is written is seen when it is closed."""

    read_at = awaitable(object_flows.read_at)
    write_at = awaitable(object_flows.write_at)
    read = awaitable(object_flows.read)
    write = awaitable(object_flows.write)


class AsyncTask(AsyncObject[types.Task]):
    """Work that outlives a call."""

    wait = awaitable(object_flows.wait)
    cancel = awaitable(object_flows.cancel)
    pause = awaitable(object_flows.pause)
    resume = awaitable(object_flows.resume)
    checkpoint = awaitable(object_flows.checkpoint)
    progress = awaitable(object_flows.progress)
    events = awaitable_stream(object_flows.events)
    set_priority = awaitable(object_flows.set_priority)


    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """How far it is, each time that it comes further, until it has ended."""
        async with await self.events() as events:
            info = await self.stat()
            if info.state not in ENDED:
                yield {"state": info.state, **info.fields["progress"]}
                async for event in events:
                    yield event.fields
                    if event.fields.get("state") in ENDED:
                        break


class AsyncContext(AsyncObject[types.Context]):
    """A conversation: its cached state stays on the device, so that each input only adds to it."""

    drop = awaitable(object_flows.drop)


class AsyncModel(AsyncObject[types.ModelInfo]):
    """A loaded model. Closing it gives up the handle; the model stays loaded until it is unloaded or evicted."""

    infer = awaitable(object_flows.infer)
    infer_stream = awaitable_stream(object_flows.infer_stream)
    embed = awaitable(object_flows.embed)
    open_context = awaitable_new(object_flows.open_context, AsyncContext)
    tune = awaitable_new(object_flows.tune, AsyncTask)
    plan_tune = awaitable(object_flows.plan_tune)
    unload = awaitable(object_flows.unload)
    sleep = awaitable(object_flows.sleep)
    wake = awaitable(object_flows.wake)
    pin = awaitable(object_flows.pin)
    unpin = awaitable(object_flows.unpin)
    keep_alive = awaitable(object_flows.keep_alive)
    swap = awaitable(object_flows.swap)
    drop_adapter = awaitable(object_flows.drop_adapter)


class AsyncSystem(Whole[AsyncClient]):
    """The system as this session sees it. After the kernel was replaced it goes on in a new session by itself; objects
    that were opened before say that they have to be opened again."""

    renews = True

    load_model = awaitable_new(system_flows.load_model, AsyncModel)
    plan_model = awaitable(system_flows.plan_model)
    model = awaitable_new(system_flows.model, AsyncModel)
    objects = awaitable(system_flows.objects)
    find = awaitable(system_flows.find)
    devices = awaitable(system_flows.devices)
    drivers = awaitable(system_flows.drivers)
    models = awaitable(system_flows.models)
    tasks = awaitable(system_flows.tasks)
    sessions = awaitable(system_flows.sessions)
    mounts = awaitable(system_flows.mounts)
    mount_of = awaitable(system_flows.mount_of)
    rollback = awaitable(system_flows.rollback)
    stat = awaitable(system_flows.stat)
    control = awaitable(system_flows.control)
    cancel = awaitable(system_flows.cancel)
    why = awaitable(why_flows.why)
    advice = awaitable(why_flows.advice)
    alerts = awaitable(why_flows.alerts)
    buffer = awaitable_new(system_flows.buffer, AsyncBuffer)
    lease = awaitable_new(system_flows.lease, AsyncLease)
    open = awaitable_new(system_flows.open_file, AsyncFile)
    read = awaitable(system_flows.read)
    write = awaitable(system_flows.write)
    list = awaitable(system_flows.entries)
    stat_path = awaitable(system_flows.stat_path)
    remove = awaitable(system_flows.remove)
    mount = awaitable_new(system_flows.mount, AsyncMount)
    unmount = awaitable(system_flows.unmount)
    namespace_path = awaitable(system_flows.namespace_path)
    search = awaitable(system_flows.search)
    spawn = awaitable_new(system_flows.spawn, AsyncTask)
    task = awaitable_new(system_flows.task, AsyncTask)
    transform = awaitable_new(system_flows.transform, AsyncTask)
    metrics = awaitable(system_flows.metrics)
    journal = awaitable(system_flows.journal)
    watch = awaitable_stream(system_flows.watch)

    def __init__(self, client: AsyncClient, on_close: Callable[[], None] | None = None) -> None:
        super().__init__(client)
        self._on_close = on_close

    async def close(self) -> None:
        """End the session, and the kernel if it is a private one."""
        try:
            await self.client.close()
        finally:
            if self._on_close is not None:
                self._on_close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
