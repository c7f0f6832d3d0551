"""List, describe and act on objects."""

from __future__ import annotations

from llmos.syscalls import calls
from llmos.syscalls.errors import Denied
from llmos.syscalls.types import Kind, ObjectInfo

import msgspec

from ..actions import find_action
from ..objects import KernelObject
from ..requests import Request
from .registry import implements


@implements(calls.ListObjects)
def list_objects(request: Request, call: calls.ListObjects) -> list[ObjectInfo]:
    kernel = request.kernel
    found = [o for o in kernel.objects.values() if o.kind is call.kind]
    wanted = [o for o in found if o.name.startswith(call.prefix) or o.id.startswith(call.prefix)]
    infos = [_visible(request, o) for o in wanted]
    return [info for info in infos if info is not None]


def _visible(request: Request, found: KernelObject) -> ObjectInfo | None:
    """An object with this session's own handle to it; None when it may not know of it."""
    kernel, session = request.kernel, request.session
    handle = kernel.sessions.root(session, found)
    if handle is None:
        return None
    rights = kernel.handles.get(session.id, handle).rights
    return msgspec.structs.replace(kernel.describe(found), handle=handle, rights=rights)


@implements(calls.StatObject)
def stat_object(request: Request, call: calls.StatObject) -> ObjectInfo:
    entry = request.entries["handle"]
    info = request.kernel.describe(request.kernel.object_of(entry))
    return msgspec.structs.replace(info, handle=entry.handle, rights=entry.rights)


@implements(calls.ControlObject)
async def control_object(request: Request, call: calls.ControlObject) -> ObjectInfo:
    entry = request.entries["handle"]
    found = request.kernel.object_of(entry)
    action = find_action(Kind(entry.kind), call.action)
    if action.right not in entry.rights:
        raise Denied(
            f"{call.action} needs the right {action.right.value} on this {entry.kind.value}", missing=action.right.value
        )
    options = action.check(call.options)
    report = await action.run(request, found, options)
    info = request.kernel.describe(found)
    if report:
        info.fields["report"] = report
    return msgspec.structs.replace(info, handle=entry.handle, rights=entry.rights)
