"""The sync face: the system, and what it opens, as objects with methods and `with`.

Every method is a flow of `system_flows` or `object_flows`; see there for what it does. `async_objects` is the twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from llmos.syscalls import types

from . import object_flows, system_flows, why_flows
from .client import Client
from .held import ENDED, Cursor, Info, Opened, Region, Whole
from .methods import blocking, blocking_new, blocking_stream


class Object(Opened[Client, Info]):
    """Base: a handle that closes with its `with` block."""

    renews = False

    stat = blocking(object_flows.stat)
    close = blocking(object_flows.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Mount(Object[types.Mount]):
    """A file system in this session's namespace; closing it removes it."""


class Lease(Object[types.Lease]):
    """Bytes of a device that nobody else gets until it is closed."""


class Buffer(Region, Object[types.Buffer]):
    """Shared memory for large inputs and results."""


class File(Cursor, Object[types.File]):
    """An open file. `read` and `write` go on where the last one ended; what is written is seen when it is closed."""

    read_at = blocking(object_flows.read_at)
    write_at = blocking(object_flows.write_at)
    read = blocking(object_flows.read)
    write = blocking(object_flows.write)


class Task(Object[types.Task]):
    """Work that outlives a call."""

    wait = blocking(object_flows.wait)
    cancel = blocking(object_flows.cancel)
    pause = blocking(object_flows.pause)
    resume = blocking(object_flows.resume)
    checkpoint = blocking(object_flows.checkpoint)
    progress = blocking(object_flows.progress)
    events = blocking_stream(object_flows.events)
    set_priority = blocking(object_flows.set_priority)


    def __iter__(self) -> Iterator[dict[str, Any]]:
        """How far it is, each time that it comes further, until it has ended."""
        with self.events() as events:
            info = self.stat()
            if info.state not in ENDED:
                yield {"state": info.state, **info.fields["progress"]}
                for event in events:
                    yield event.fields
                    if event.fields.get("state") in ENDED:
                        break


class Context(Object[types.Context]):
    """A conversation: its cached state stays on the device, so that each input only adds to it."""

    drop = blocking(object_flows.drop)


class Model(Object[types.ModelInfo]):
    """A loaded model. Closing it gives up the handle; the model stays loaded until it is unloaded or evicted."""

    infer = blocking(object_flows.infer)
    infer_stream = blocking_stream(object_flows.infer_stream)
    embed = blocking(object_flows.embed)
    open_context = blocking_new(object_flows.open_context, Context)
    tune = blocking_new(object_flows.tune, Task)
    plan_tune = blocking(object_flows.plan_tune)
    unload = blocking(object_flows.unload)
    sleep = blocking(object_flows.sleep)
    wake = blocking(object_flows.wake)
    pin = blocking(object_flows.pin)
    unpin = blocking(object_flows.unpin)
    keep_alive = blocking(object_flows.keep_alive)
    swap = blocking(object_flows.swap)
    drop_adapter = blocking(object_flows.drop_adapter)


class System(Whole[Client]):
    """The system as this session sees it. After the kernel was replaced it goes on in a new session by itself; objects
    that were opened before say that they have to be opened again."""

    renews = True

    load_model = blocking_new(system_flows.load_model, Model)
    plan_model = blocking(system_flows.plan_model)
    model = blocking_new(system_flows.model, Model)
    objects = blocking(system_flows.objects)
    find = blocking(system_flows.find)
    devices = blocking(system_flows.devices)
    drivers = blocking(system_flows.drivers)
    models = blocking(system_flows.models)
    tasks = blocking(system_flows.tasks)
    sessions = blocking(system_flows.sessions)
    mounts = blocking(system_flows.mounts)
    mount_of = blocking(system_flows.mount_of)
    rollback = blocking(system_flows.rollback)
    stat = blocking(system_flows.stat)
    control = blocking(system_flows.control)
    cancel = blocking(system_flows.cancel)
    why = blocking(why_flows.why)
    advice = blocking(why_flows.advice)
    alerts = blocking(why_flows.alerts)
    buffer = blocking_new(system_flows.buffer, Buffer)
    lease = blocking_new(system_flows.lease, Lease)
    open = blocking_new(system_flows.open_file, File)
    read = blocking(system_flows.read)
    write = blocking(system_flows.write)
    list = blocking(system_flows.entries)
    stat_path = blocking(system_flows.stat_path)
    remove = blocking(system_flows.remove)
    mount = blocking_new(system_flows.mount, Mount)
    unmount = blocking(system_flows.unmount)
    namespace_path = blocking(system_flows.namespace_path)
    search = blocking(system_flows.search)
    spawn = blocking_new(system_flows.spawn, Task)
    task = blocking_new(system_flows.task, Task)
    transform = blocking_new(system_flows.transform, Task)
    metrics = blocking(system_flows.metrics)
    journal = blocking(system_flows.journal)
    watch = blocking_stream(system_flows.watch)

    def __init__(self, client: Client, on_close: Callable[[], None] | None = None) -> None:
        super().__init__(client)
        self._on_close = on_close

    def close(self) -> None:
        """End the session, and the kernel if it is a private one."""
        try:
            self.client.close()
        finally:
            if self._on_close is not None:
                self._on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
