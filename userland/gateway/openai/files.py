"""`/v1/files`: files of a key, kept below its own folder of the namespace."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from llmos.syscalls.errors import BadArgument, NotFound
from llmos.userland.async_objects import AsyncFile, AsyncSystem

from ..core.caller import Caller, caller_of, gateway_of
from ..core.errors import HttpError
from ..core.respond import EventStream, json_response
from ..core.store import StoredFile
from ..native.confine import home, outside
from .pages import page
from .uploads import file_of, form_of, text_of
from .writing import new_id

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
_PIECE = 1 << 20
_UNSAFE = re.compile(r"[^\w.-]+")


async def upload(request: Request) -> Response:
    """Keep a file."""
    caller, gateway = caller_of(request), gateway_of(request)
    async with form_of(request) as form:
        given = file_of(form)
        purpose = text_of(form, "purpose")
        if purpose not in PURPOSES:
            want = ", ".join(PURPOSES)
            raise BadArgument(f"purpose is {purpose[:40]!r}; expected {want}", name="purpose", got=purpose, want=want)
        id = new_id("file")
        name = safe_name(given.filename or "")
        path = f"{home(caller)}/files/{id}/{name}"
        system = await gateway.sessions.system(caller)
        size, digest = await _store(system, path, given)
    row = StoredFile(id, caller.key, given.filename or name, purpose, size, path, time.time(), digest)
    gateway.store.add_file(row)
    return json_response(shown(row, caller))


async def _store(system: AsyncSystem, path: str, given: UploadFile) -> tuple[int, str]:
    """Write it piece by piece; what was written of a file that does not come whole is never seen."""
    digest = hashlib.sha256()
    opened: AsyncFile = await system.open(path, "x")
    async with opened:
        while piece := await given.read(_PIECE):
            digest.update(piece)
            await opened.write(piece)
        return opened.position, digest.hexdigest()


def safe_name(given: str) -> str:
    """The last part of a name, of harmless characters: it becomes the name in the namespace."""
    last = given.replace("\\", "/").rpartition("/")[2]
    return _UNSAFE.sub("_", last).strip("._")[:100] or "file"


async def list_files(request: Request) -> Response:
    """The key's files, the newest first."""
    caller = caller_of(request)
    rows = gateway_of(request).store.files(caller.key, request.query_params.get("purpose", ""))
    return json_response(page(request, [shown(row, caller) for row in rows], 10_000))


async def get_file(request: Request) -> Response:
    """One file."""
    return json_response(shown(stored_file(request, request.path_params["file"]), caller_of(request)))


async def content(request: Request) -> ASGIApp:
    """The bytes of a file."""
    row = stored_file(request, request.path_params["file"])
    system = await gateway_of(request).sessions.system(caller_of(request))
    opened = await system.open(row.path)
    headers = {"content-disposition": f'attachment; filename="{safe_name(row.filename)}"'}
    return EventStream(_pieces(opened), media_type="application/octet-stream", on_close=opened.close, headers=headers)


async def _pieces(opened: AsyncFile) -> AsyncIterator[bytes]:
    while piece := await opened.read(_PIECE):
        yield piece


async def delete_file(request: Request) -> Response:
    """Remove a file."""
    caller, gateway = caller_of(request), gateway_of(request)
    row = stored_file(request, request.path_params["file"])
    system = await gateway.sessions.system(caller)
    for path in (row.path, row.path.rpartition("/")[0]):
        try:
            await system.remove(path)
        except NotFound:
            continue
    gateway.store.remove_file(caller.key, row.id)
    return json_response({"id": row.id, "object": "file", "deleted": True})


def stored_file(request: Request, id: str) -> StoredFile:
    """A file of the key that asks. Raises HttpError 404."""
    caller: Caller = caller_of(request)
    row = gateway_of(request).store.file(caller.key, id)
    if row is None:
        raise HttpError(404, "not_found_error", "not_found", f"this key has no file {id[:80]!r}", "file_id")
    return row


def shown(row: StoredFile, caller: Caller) -> dict[str, Any]:
    """A file as the API has it; its path is the one by which the key names it elsewhere."""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created),
        "expires_at": None,
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "processed",
        "status_details": None,
        "llmos": {"path": outside(caller, row.path), "sha256": row.sha256},
    }
