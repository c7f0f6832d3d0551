"""The store: models whole, between one LLM OS and another.

To fetch: `GET /api/v1/store/models/NAME[@VERSION]` answers with version and manifest, `.../NAME@VERSION/FILE` with the
file or a range of it. To bring: `POST .../models/NAME` with the manifest answers with an upload and the files that have
arrived, `PUT /api/v1/store/uploads/ID/FILE` takes one, `POST .../uploads/ID` makes a version of them. A file counts as
arrived when its SHA-256 is the promised one, so an interrupted upload goes on with what is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument, BadModel, Exists, NotFound, from_wire
from llmos.syscalls.types import Entry, TransformRecipe
from llmos.userland.async_objects import AsyncSystem

from ..core.body import inbox_of, json_body
from ..core.caller import Caller, caller_of, gateway_of
from ..core.errors import HttpError
from ..core.respond import json_response
from ..core.routing import requires
from . import confine
from .files import Download, range_of, stored
from .queries import ROOT, words

MANIFEST = "manifest.json"
MOST_FILES = 10_000
WAIT_S = 20.0
"""How long one answer waits for the version; then the caller asks again."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")


class UploadBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that is about to be sent."""

    manifest: dict[str, Any]
    """With `files`, each with name, bytes and sha256."""
    replace: bool = False
    """Store a new version of a model that exists."""


class CommitBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An upload that is whole."""

    path: str
    """Where it goes: `/models/NAME`, as when it was begun."""
    replace: bool = False
    task: str = ""
    """The task that an earlier answer named."""


def store_routes() -> list[BaseRoute]:
    """All routes of the store."""
    models = f"{ROOT}/store/models/{{path:path}}"
    return [
        Route(models, requires("read", _fetch), methods=["GET"]),
        Route(models, requires("manage", _begin), methods=["POST"]),
        Route(f"{ROOT}/store/uploads/{{upload}}", requires("manage", _commit), methods=["POST"]),
        Route(f"{ROOT}/store/uploads/{{upload}}/{{name:path}}", requires("manage", _upload), methods=["PUT"]),
    ]


# ---- fetching


async def _fetch(request: Request) -> ASGIApp:
    """The manifest of a model, or one of its files."""
    words(request)
    path, _caller, system = await _place(request)
    entry = await system.stat_path(path)
    if entry.kind == "model":
        name = path.partition("@")[0]
        manifest = await _manifest(system, f"{name}@{entry.version}")
        return json_response({"path": name, "version": entry.version, "manifest": manifest})
    opened = await system.client.call(calls.OpenFile(path=path))
    try:
        first, count, status = range_of(request.headers.get("range", ""), opened.bytes)
    except HttpError:
        await system.client.call(calls.CloseHandle(handle=opened.handle))
        raise
    return Download(system.client, opened, first, count, status)


# ---- bringing


async def _begin(request: Request) -> ASGIApp:
    """Announce a model; the answer names the upload and the files that have arrived already."""
    words(request)
    body = await json_body(request, UploadBody)
    path, caller, system = await _place(request)
    files = checked_files(body.manifest)
    current = await _current(system, path)
    if current is not None:
        version, listed = current
        if listed == {name: digest for name, (_size, digest) in files.items()}:
            return json_response({"version": version, "unchanged": True})
        if not body.replace:
            raise Exists(f"{path} exists already and is not the same; --force stores a new version of it")
    upload = upload_id(path, files)
    folder = _folder(caller, upload)
    await system.write(f"{folder}/{MANIFEST}", json.dumps(body.manifest).encode())
    return json_response({"upload": upload, "have": await _arrived(system, folder, files)})


async def _upload(request: Request) -> ASGIApp:
    """One file of an upload."""
    words(request)
    caller, gateway = caller_of(request), gateway_of(request)
    system = await gateway.sessions.system(caller)
    folder = _folder(caller, str(request.path_params["upload"]))
    files = await _promised(system, folder)
    name = str(request.path_params["name"])
    if name not in files:
        raise NotFound(f"the manifest of this upload lists no file {name[:200]!r}")
    size, wanted = files[name]
    inbox_of(request).allow(size)
    spool_folder = gateway.home / "gateway"
    spool_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.TemporaryFile(dir=spool_folder) as spool:
        async for piece in request.stream():
            spool.write(piece)
            digest.update(piece)
        if spool.tell() != size or digest.hexdigest() != wanted:
            raise BadModel(f"{name}: its size or sha256 is not the promised one", file=name, why="it was damaged")
        await stored(system.client, f"{folder}/{name}", spool)
    return json_response({"name": name, "bytes": size}, 201)


async def _commit(request: Request) -> ASGIApp:
    """Make a version of an upload: 200 with the version, or 202 with the task while it goes on."""
    body = await json_body(request, CommitBody)
    words(request)
    caller, upload = caller_of(request), str(request.path_params["upload"])
    system = await gateway_of(request).sessions.system(caller)
    path, folder = confine.model_path(caller, body.path), _folder(caller, upload)
    files = await _promised(system, folder)
    if upload_id(path, files) != upload:
        raise BadArgument(f"the upload was not begun for {path}", name="path", got=path, want="that of the beginning")
    if body.task:
        task = await system.task(body.task)
    else:
        missing = sorted(files.keys() - set(await _arrived(system, folder, files)))
        if missing:
            raise BadModel(f"{missing[0]}: has not arrived yet", file=missing[0], why="is missing")
        recipe = TransformRecipe(kind="import", options={"replace": True} if body.replace else {})
        task = await system.transform([folder], path, recipe)
    try:
        result = await asyncio.wait_for(task.wait(), WAIT_S)
    except TimeoutError:
        return json_response({"task": task.info.id, "state": "running"}, 202)
    value = result.value if isinstance(result.value, dict) else {}
    if result.state != "done":
        raise from_wire(value["error"]) if "error" in value else Exists(f"the task {result.id} was {result.state}")
    await _clear(system, folder, files)
    return json_response({"path": path, "version": value.get("version", ""), "unchanged": value.get("unchanged")})


# ---- pieces


def checked_files(manifest: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file that a manifest lists, by name. Raises BadArgument."""
    entries = manifest.get("files")
    if not isinstance(entries, list) or not 0 < len(entries) <= MOST_FILES:
        raise BadArgument("manifest: files is not a list of files", name="manifest", want=f"1 to {MOST_FILES} files")
    found: dict[str, tuple[int, str]] = {}
    for entry in entries:
        match entry:
            case {"name": str(name), "bytes": int(size), "sha256": str(digest)} if (
                size >= 0 and _SHA256.fullmatch(digest) and _is_inside(name) and name not in found
            ):
                found[name] = size, digest
            case _:
                want = "a name inside of the folder, bytes and sha256"
                said = f"manifest: {str(entry)[:80]} is no file"
                raise BadArgument(said, name="manifest", got=str(entry)[:80], want=want)
    return found


def _is_inside(name: str) -> bool:
    """Whether a file of that name lies in the folder that it is put into, and is a file of the model."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return str(path) == name and not path.is_absolute() and not hidden and name != MANIFEST and "\0" not in name


def upload_id(path: str, files: Mapping[str, tuple[int, str]]) -> str:
    """The same for the same files to the same place, so that an interrupted upload is found again."""
    return hashlib.sha256(json.dumps([path, sorted(files.items())]).encode()).hexdigest()[:32]


def _folder(caller: Caller, upload: str) -> str:
    if not _ID.fullmatch(upload):
        raise NotFound(f"there is no upload {upload[:80]!r}")
    return f"{confine.home(caller)}/incoming/{upload}"


async def _place(request: Request) -> tuple[str, Caller, AsyncSystem]:
    """The path of the model, who asks, and its session."""
    caller = caller_of(request)
    path = confine.model_path(caller, f"{confine.MODELS}/{request.path_params['path']}")
    return path, caller, await gateway_of(request).sessions.system(caller)


async def _current(system: AsyncSystem, path: str) -> tuple[str, dict[str, str]] | None:
    """The version that is there and its files with their hashes; None where there is none."""
    try:
        entry = await system.stat_path(path)
    except NotFound:
        return None
    if entry.kind != "model":
        raise Exists(f"{path} is a folder of models; name a model in it")
    manifest = await _manifest(system, f"{path.partition('@')[0]}@{entry.version}")
    return entry.version, {file["name"]: file.get("sha256", "") for file in manifest["files"]}


async def _manifest(system: AsyncSystem, model: str) -> dict[str, Any]:
    """The manifest of a version; one that lists no files, as of a folder that was put there, gets those there are."""
    manifest: dict[str, Any] = json.loads(await system.read(f"{model}/{MANIFEST}"))
    if not isinstance(manifest.get("files"), list):
        found = [entry async for entry in _below(system, model)]
        manifest["files"] = [{"name": e.path.removeprefix(f"{model}/"), "bytes": e.bytes} for e in found]
    return manifest


async def _below(system: AsyncSystem, folder: str) -> AsyncIterator[Entry]:
    for entry in await system.list(folder):
        if entry.kind != "file":
            async for inner in _below(system, entry.path):
                yield inner
        elif not entry.path.endswith(f"/{MANIFEST}"):
            yield entry


async def _promised(system: AsyncSystem, folder: str) -> dict[str, tuple[int, str]]:
    try:
        return checked_files(json.loads(await system.read(f"{folder}/{MANIFEST}")))
    except NotFound:
        raise NotFound("there is no such upload; begin it with POST") from None


async def _arrived(system: AsyncSystem, folder: str, files: Mapping[str, tuple[int, str]]) -> list[str]:
    """Names of the files that are there; only whole ones are ever stored."""
    found = []
    for name, (size, _digest) in sorted(files.items()):
        try:
            entry = await system.stat_path(f"{folder}/{name}")
        except NotFound:
            continue
        if entry.kind == "file" and entry.bytes == size:
            found.append(name)
    return found


async def _clear(system: AsyncSystem, folder: str, files: Mapping[str, tuple[int, str]]) -> None:
    """Remove an upload that has become a version."""
    for name in (*files, MANIFEST):
        await system.remove(f"{folder}/{name}")
    parents = {str(parent) for name in files for parent in PurePosixPath(name).parents if str(parent) != "."}
    for inner in sorted(parents, key=len, reverse=True):
        await system.remove(f"{folder}/{inner}")
    await system.remove(folder)
