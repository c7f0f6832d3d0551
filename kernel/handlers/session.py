"""Handles: close, copy, give, revoke. `hello` is answered before there is a session, in `sessions`."""

from __future__ import annotations

from typing import Any

from llmos.syscalls import calls
from llmos.syscalls.types import Done, NewHandle, Revoked

from ..objects import FileObject, SessionObject
from ..requests import Request
from .registry import implements


@implements(calls.CloseHandle)
def close_handle(request: Request, call: calls.CloseHandle) -> Any:
    kernel, session = request.kernel, request.session
    entry = request.entries["handle"]
    found = kernel.objects.get(entry.object)
    if isinstance(found, SessionObject) and found.session is session:
        return _goodbye(request)
    kernel.handles.close(session.id, entry.handle)
    kernel.sessions.forget_root(entry)
    if isinstance(found, FileObject) and found.mode != "r" and not kernel.handles.held(found.id):
        kernel.remove_object(found)
        return kernel.files.close(found)
    kernel.sessions.release(entry)
    return Done()


def _goodbye(request: Request) -> Done:
    """The session ends itself: answered first, ended when this turn of the loop is over."""
    kernel, session = request.kernel, request.session
    kernel.runner.after(0, lambda: kernel.sessions.close(session, "it said goodbye"))
    return Done()


@implements(calls.DupHandle)
def dup_handle(request: Request, call: calls.DupHandle) -> NewHandle:
    request.kernel.sessions.check_handles(request.session)
    entry = request.kernel.handles.dup(request.session.id, call.handle, call.rights)
    return NewHandle(handle=entry.handle, rights=entry.rights)


@implements(calls.GrantHandle)
def grant_handle(request: Request, call: calls.GrantHandle) -> NewHandle:
    kernel = request.kernel
    receiver = kernel.sessions.by_id.get(call.session)
    if receiver is not None:
        kernel.sessions.check_handles(receiver)
    entry = kernel.handles.grant(request.session.id, call.handle, call.session, call.rights)
    kernel.emit("handle", call.session, handle=entry.handle, of=entry.kind.value, granted_by=request.session.id)
    return NewHandle(handle=entry.handle, rights=entry.rights)


@implements(calls.RevokeHandle)
def revoke_handle(request: Request, call: calls.RevokeHandle) -> Revoked:
    kernel = request.kernel
    closed = kernel.handles.revoke(request.session.id, call.handle)
    for entry in closed:
        kernel.sessions.forget_root(entry)
    return Revoked(closed=len(closed))
