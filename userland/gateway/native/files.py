"""Files of the namespace, whole or a range of their bytes: GET, PUT and DELETE /api/v1/files/PATH.

`/home/me` is the folder of the key's own files. A file that is put is seen when all of it has arrived.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator
from typing import IO

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument, Denied
from llmos.syscalls.types import Data, Entry, File
from llmos.userland.aio import AsyncClient

from ..core.body import inbox_of, too_large
from ..core.caller import Caller, caller_of, gateway_of
from ..core.errors import HttpError
from ..core.respond import json_response
from ..core.routing import requires
from . import confine
from .derive import answer
from .queries import ROOT, words
from .reading import named_path

CHUNK = 1 << 20
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def file_routes() -> list[BaseRoute]:
    """The three routes."""
    path = f"{ROOT}/files/{{path:path}}"
    return [
        Route(path, requires("files", _get), methods=["GET"]),
        Route(path, requires("files", _put), methods=["PUT"]),
        Route(path, requires("files", _delete), methods=["DELETE"]),
    ]


# ---- reading


class Download:
    """An ASGI app that sends a file, or a range of it, as it is read. Never shown as a page of this origin."""

    def __init__(self, client: AsyncClient, opened: File, first: int, count: int, status: int) -> None:
        self._client = client
        self._opened = opened
        self._first = first
        self._count = count
        self._status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self._status, "headers": self._headers()})
            if scope["method"] != "HEAD":
                async for piece in self._pieces():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if not self._client.ended:
                self._client.start(calls.CloseHandle(handle=self._opened.handle))

    def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(self._count),
            "content-disposition": "attachment",
            "x-content-type-options": "nosniff",
            "cache-control": "private, no-cache",
            "accept-ranges": "bytes",
            "etag": etag(self._opened.version),
        }
        if self._status == 206:
            last = self._first + self._count - 1
            headers["content-range"] = f"bytes {self._first}-{last}/{self._opened.bytes}"
        return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]

    async def _pieces(self) -> AsyncIterator[bytes]:
        at, end = self._first, self._first + self._count
        while at < end:
            wanted = min(CHUNK, end - at)
            data: Data = await self._client.call(calls.ReadFile(file=self._opened.handle, offset=at, count=wanted))
            assert isinstance(data.data, bytes)
            if not data.data:
                return
            yield data.data
            at += len(data.data)


def etag(version: str) -> str:
    """The version of a file as HTTP names it."""
    return '"' + re.sub(r"[^\x21\x23-\x7e]", "_", version) + '"'


async def _get(request: Request) -> ASGIApp:
    """A file, or a range of its bytes."""
    words(request)
    caller = caller_of(request)
    client = (await gateway_of(request).sessions.system(caller)).client
    opened = await client.call(calls.OpenFile(path=confine.model_path(caller, named_path(request))))
    try:
        first, count, status = range_of(request.headers.get("range", ""), opened.bytes)
    except HttpError:
        await client.call(calls.CloseHandle(handle=opened.handle))
        raise
    return Download(client, opened, first, count, status)


def range_of(header: str, size: int) -> tuple[int, int, int]:
    """First byte, number of bytes and status for one range (RFC 9110, 14.1.2); several are answered whole.

    Raises:
        HttpError: 416, the range begins behind the end.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match[0] == "bytes=-":
        return 0, size, 200
    if not match[1]:
        count = min(int(match[2]), size)
        first = size - count
    else:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return 0, size, 200
        count = last - first + 1
    if count <= 0:
        raise HttpError(
            416, "invalid_request_error", "range_not_satisfiable", f"the file has {size} bytes; {header!r} is behind",
            headers={"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    return first, count, 206


# ---- writing


async def _put(request: Request) -> ASGIApp:
    """Write a whole file; it is seen when all of it has arrived."""
    words(request)
    caller, gateway = caller_of(request), gateway_of(request)
    path = own_path(caller, named_path(request))
    limit = gateway.settings.upload_bytes
    inbox_of(request).allow(limit)
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > limit:
        raise too_large(limit)
    wanted = request.headers.get("if-match")
    client = (await gateway.sessions.system(caller)).client
    folder = gateway.home / "gateway"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as spool:
        async for piece in request.stream():
            spool.write(piece)
        entry = await stored(client, path, spool, None if wanted in (None, "*") else str(wanted).strip('"'))
    return json_response(answer(confine.entries(caller, [entry])[0], "", ()), 201)


async def stored(client: AsyncClient, path: str, spool: IO[bytes], expected: str | None = None) -> Entry:
    """Write all that the spool holds to a path.

    When it fails on the way the handle stays open: closing it would publish a part. Its session's end drops it.
    """
    opened = await client.call(calls.OpenFile(path=path, mode="w", expected_version=expected))
    spool.seek(0)
    offset = 0
    while piece := spool.read(CHUNK):
        offset += (await client.call(calls.WriteFile(file=opened.handle, offset=offset, data=piece))).count
    await client.call(calls.CloseHandle(handle=opened.handle))
    return await client.call(calls.StatPath(path=path))


def own_path(caller: Caller, given: str) -> str:
    """A path that a key may write: below its own folder; for admins any.

    Raises:
        Denied: it lies elsewhere.
        BadArgument: the folder itself.
    """
    named = confine.path(caller, given)
    if named == confine.home(caller):
        raise BadArgument(f"{given} is a folder; name a file in it", name="path", got=given)
    if not caller.admin and not confine.is_below(named, confine.home(caller)):
        raise Denied(f"files are written below {confine.ME}; {given[:200]} is elsewhere", missing="admin")
    return named


async def _delete(request: Request) -> ASGIApp:
    """Remove a file or an empty folder."""
    words(request)
    caller = caller_of(request)
    client = (await gateway_of(request).sessions.system(caller)).client
    done = await client.call(calls.RemovePath(path=own_path(caller, named_path(request))))
    return json_response(answer(done, "", ()))
