"""Files and mounts."""

from __future__ import annotations

from llmos.syscalls import calls
from llmos.syscalls.errors import Denied
from llmos.syscalls.types import ALL_RIGHTS, Data, Done, Entry, File, Hit, Kind, Mount, Written

from .. import fitting
from ..namespace import MountPoint, normalize
from ..objects import FileObject, MountObject
from ..requests import Request
from .registry import implements


def _file(request: Request) -> FileObject:
    found = request.kernel.object_of(request.entries["file"])
    assert isinstance(found, FileObject)
    return found


@implements(calls.OpenFile)
async def open_file(request: Request, call: calls.OpenFile) -> File:
    return await request.kernel.files.open(request, normalize(call.path), call.mode, call.expected_version)


@implements(calls.ReadFile)
async def read_file(request: Request, call: calls.ReadFile) -> Data:
    return await request.kernel.files.read(request, _file(request), call.offset, call.count)


@implements(calls.WriteFile)
async def write_file(request: Request, call: calls.WriteFile) -> Written:
    return await request.kernel.files.write(request, _file(request), call.offset, call.data)


@implements(calls.ListDir)
async def list_dir(request: Request, call: calls.ListDir) -> list[Entry]:
    return await request.kernel.files.entries(request.session, normalize(call.path), call.after)


@implements(calls.StatPath)
async def stat_path(request: Request, call: calls.StatPath) -> Entry:
    return await request.kernel.files.stat(request.session, normalize(call.path))


@implements(calls.RemovePath)
async def remove_path(request: Request, call: calls.RemovePath) -> Done:
    return await request.kernel.files.remove(request.session, normalize(call.path))


@implements(calls.SearchFs)
async def search_fs(request: Request, call: calls.SearchFs) -> list[Hit]:
    return await fitting.search(request, normalize(call.path), call.query, dict(call.filters), call.limit)


@implements(calls.MountFs)
async def mount_fs(request: Request, call: calls.MountFs) -> Mount:
    """A source is a place of the host, so only the kernel's own user may name one."""
    kernel, session = request.kernel, request.session
    if session.peer.uid != kernel.uid or not session.ambient:
        raise Denied("mount_fs: only programs of the kernel's own user may mount the host's folders", missing="uid")
    driver = kernel.filesystem(call.filesystem, call.path)
    await kernel.supervisor.wait_ready(driver)
    point = MountPoint(
        path=normalize(call.path),
        filesystem=call.filesystem,
        source=call.source,
        mode=call.mode,
        id=kernel.new_id("fs"),
    )
    await kernel.files.check_source(point)
    session.mounts.mount(point)
    found = MountObject(
        id=point.id, kind=Kind.MOUNT, name=point.path, owner=session.owner, point=point, session=session
    )
    handle = kernel.add_object(found, session, ALL_RIGHTS)
    return Mount(handle=handle, path=point.path, filesystem=point.filesystem, source=point.source, mode=point.mode)
