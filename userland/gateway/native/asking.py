"""Makes the calls of the table in the session of the key that asks, within what the key may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from llmos.syscalls import calls
from llmos.syscalls.errors import NotFound
from llmos.syscalls.spec import Call, CallSpec
from llmos.syscalls.types import Context, Entry, Event, Handle, Hit, Kind, Lease, ObjectInfo, Reason, Record
from llmos.userland import bulk
from llmos.userland.aio import AsyncClient
from llmos.userland.async_objects import AsyncSystem
from llmos.userland.flow import OnProgress
from llmos.userland.inputs import of_namespace

from ..core.caller import Caller
from . import confine
from .derive import Wanted, made, wanted

_SEARCHED = (
    Kind.MODEL, Kind.TASK, Kind.DEVICE, Kind.DRIVER, Kind.CONTEXT, Kind.LEASE, Kind.MOUNT, Kind.SESSION, Kind.BUFFER,
    Kind.FILE,
)  # fmt: skip
"""Where an id without a kind is looked for, in this order."""
_MOST_FOREIGN = 10_000
"""So many objects of others are remembered as such."""
ABOUT = (Kind.MODEL, Kind.DEVICE, Kind.DRIVER, Kind.TASK, Kind.CONTEXT, Kind.LEASE, Kind.SESSION)
"""Kinds that the journal and events speak of."""

Load = Callable[[str], Awaitable[Handle]]
_RUNNING = (calls.Infer, calls.InferStream, calls.Embed, calls.OpenContext)


@dataclass(frozen=True)
class Asked:
    """What a call was answered with."""

    value: Any
    request: str
    reasons: Sequence[Reason]


async def objects(caller: Caller, system: AsyncSystem, kind: Kind, prefix: str = "") -> list[ObjectInfo]:
    """The objects of a kind that the caller sees."""
    shown = [confine.shown(caller, info) for info in await system.objects(kind, prefix)]
    return [info for info in shown if info is not None]


async def known(caller: Caller, system: AsyncSystem) -> set[str]:
    """Ids and names of all objects that the caller sees, as the journal and events call them."""
    names: set[str] = set()
    for kind in ABOUT:
        for info in await objects(caller, system, kind):
            names |= {info.id, info.name} if info.kind in confine.PUBLIC_KINDS else {info.id}
    return names


class Held:
    """The handles that hold leases and contexts of a session: one that is made for a look does not."""

    def __init__(self) -> None:
        self._handles: WeakKeyDictionary[AsyncClient, dict[str, Handle]] = WeakKeyDictionary()

    def keep(self, client: AsyncClient, value: object) -> None:
        """Remember the handle that a call made."""
        if isinstance(value, (Lease, Context)):
            self._handles.setdefault(client, {})[value.id] = value.handle

    def take(self, client: AsyncClient, id: str) -> Handle:
        """The handle of an object, to be closed now.

        Raises:
            NotFound: this session holds no such object.
        """
        handle = self._handles.get(client, {}).pop(id, None)
        if handle is None:
            raise NotFound(f"this key does not hold {id}: whoever made it gives it back, or its session's end does")
        return handle


class Found(NamedTuple):
    """An object that a body names."""

    handle: Handle
    kind: Kind
    id: str


async def found(caller: Caller, system: AsyncSystem, wanted: Wanted) -> Found:
    """An object by its kind and name.

    Raises:
        NotFound: there is none that the caller sees.
    """
    if wanted.kind is Kind.SYSTEM:
        return Found(system.handle, Kind.SYSTEM, "system")
    for kind in _SEARCHED if wanted.kind is None else (wanted.kind,):
        for info in await objects(caller, system, kind):
            by_name = wanted.kind is not None and wanted.name in (info.name, info.fields.get("path", info.id))
            if (by_name or wanted.name == info.id) and info.handle is not None:
                return Found(info.handle, kind, info.id)
    what = "object" if wanted.kind is None else wanted.kind.value
    raise NotFound(f"there is no {what} {wanted.name[:200]!r}, or none that this key sees")


async def call_of(
    caller: Caller,
    system: AsyncSystem,
    spec: CallSpec,
    body: Mapping[str, Any],
    load: Load | None = None,
    held: Held | None = None,
) -> Call[Any]:
    """The call that a body means, with objects found and paths confined.

    Args:
        load: loads a stored model for a call that runs one.
        held: what the session holds, for a call that ends it.

    Raises:
        BadArgument, NotFound, Denied: what is wrong with the body.
    """
    handles: dict[str, Handle] = {}
    kinds: dict[str, Kind] = {}
    named = wanted(spec, body)
    # What has the wrong form is told before anything is looked for.
    form = made(spec, body, {each.field.name: Handle(0) for each in named}, system.handle)
    for each in named:
        try:
            handle, kind, id = await found(caller, system, each)
        except NotFound:
            if load is None or each.kind is not Kind.MODEL or not isinstance(form, _RUNNING):
                raise
            handle, kind, id = await load(each.name), Kind.MODEL, ""
        handles[each.field.name], kinds[each.field.name] = handle, kind
    call = confine.call(caller, made(spec, body, handles, system.handle), kinds)
    if isinstance(call, calls.CloseHandle) and held is not None:
        call = calls.CloseHandle(handle=held.take(system.client, id))
    if isinstance(call, (calls.Infer, calls.InferStream, calls.Embed)):
        content = await system.client.run(of_namespace(call.input))
        call = msgspec.structs.replace(call, input=content)
    return call


async def ask(
    client: AsyncClient, call: Call[Any], timeout: float | None = None, on_progress: OnProgress | None = None
) -> Asked:
    """Make one call that does not stream; large bytes go through shared memory, as `AsyncClient.call` does it."""
    buffers: list[Handle] = []
    if bulk.is_bulky(call):
        call, buffers = await client.run(bulk.move(call, client.welcome.system))
    try:
        pending = client.start(call, timeout, on_progress)
        await client.wait(pending)
        value = pending.result()
    finally:
        if buffers and not client.ended:
            await client.run(bulk.free(buffers))
    if bulk.is_elsewhere(value):
        value = await client.run(bulk.fetch(value))
    return Asked(value, pending.request, pending.reasons)


async def seen(caller: Caller, system: AsyncSystem, call: Call[Any], value: Any) -> Any:
    """A result with what the caller may see of it."""
    if isinstance(value, list):
        return await _seen_list(caller, system, value)
    if isinstance(value, ObjectInfo):
        return confine.shown(caller, value) or value
    if isinstance(value, Entry):
        return confine.entries(caller, [value])[0]
    if isinstance(call, calls.ReadMetrics):
        return confine.metrics(caller, value)
    return value


async def _seen_list(caller: Caller, system: AsyncSystem, value: list[Any]) -> list[Any]:
    first = value[0] if value else None
    if isinstance(first, ObjectInfo):
        return [info for info in (confine.shown(caller, each) for each in value) if info is not None]
    if isinstance(first, Entry):
        return confine.entries(caller, value)
    if isinstance(first, Hit):
        return confine.hits(caller, value)
    if isinstance(first, Record) and not caller.admin:
        return confine.records(caller, value, await known(caller, system))
    return value


class Visible:
    """Which events a caller may see; objects that appear meanwhile are looked up once each."""

    def __init__(self, caller: Caller, system: AsyncSystem) -> None:
        self._caller = caller
        self._system = system
        self._known: set[str] = set()
        self._foreign: set[str] = set()

    async def begin(self) -> None:
        """Learn what there is."""
        if not self._caller.admin:
            self._known = await known(self._caller, self._system)

    async def sees(self, event: Event) -> bool:
        """Whether the event is about what the caller sees."""
        if self._caller.admin:
            return True
        if event.about not in self._known | self._foreign:
            now = await known(self._caller, self._system)
            self._known |= now
            if event.about not in now:
                if len(self._foreign) >= _MOST_FOREIGN:
                    self._foreign.clear()
                self._foreign.add(event.about)
        return confine.sees_event(self._caller, event, self._known)
