"""Models to another LLM OS, by the store routes of its gateway: file by file, so that what has arrived stays there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import quote, urlsplit

from llmos.drivers.contract import ModelSource, ProgressSink, SourceFile
from llmos.syscalls.errors import BadArgument, Unavailable

from ...copying import sha256
from .connections import on_connections
from .job import OWN, Meter
from .remote import STORE, key_headers
from .web import BLOCK, answer

TRIES = 3
ASK_S = 0.2


def push(source: ModelSource, target: str, options: Mapping[str, Any], progress: ProgressSink) -> dict[str, Any]:
    """Send a located model; `target` is `http://HOST:PORT` or that with `/models/NAME`.

    Raises:
        BadArgument: not an address.
        Exists: the model is there, is another one, and `replace` is not set.
        Denied, NoSpace, NotFound, Unavailable, BadModel: what the other side said.
    """
    unknown = sorted(set(options) - {"replace"})
    if unknown:
        raise BadArgument(f"push has no option {unknown[0]!r}", name=unknown[0], want="replace")
    base, path = _address(target, source.path)
    manifest = _manifest(source, progress)
    replace = bool(options.get("replace", False))
    begun = _ask("POST", f"{base}{STORE}{quote(path)}", {"manifest": manifest, "replace": replace})
    total = sum(file.bytes for file in source.files)
    result = {"files": len(source.files), "bytes": total, "url": f"{base}{path}", "unchanged": False}
    if begun.get("unchanged"):
        return {**result, "version": str(begun.get("version", "")), "unchanged": True}
    upload = str(begun.get("upload", ""))
    there = set(begun.get("have") or ())
    missing = [file for file in source.files if file.name not in there]
    meter = Meter(progress, total, "upload")
    meter.add(total - sum(file.bytes for file in missing))
    uploads = f"{base}{STORE}/uploads/{quote(upload)}"
    on_connections(missing, lambda file, stop: _send(file, f"{uploads}/{quote(file.name)}", meter, stop))
    return {**result, "version": _finish(uploads, {"path": path, "replace": replace})}


def _address(target: str, path: str) -> tuple[str, str]:
    address = urlsplit(target.removeprefix("llmos+"))
    if address.scheme not in ("http", "https") or not address.hostname or address.username or address.query:
        want = "http://HOST:PORT"
        raise BadArgument(f"{target!r} is no address of an LLM OS", name="out", got=target, want=want)
    named = address.path.rstrip("/")
    if named and (not named.startswith("/models/") or ".." in named.split("/")):
        raise BadArgument(f"{target!r} names no place for a model", name="out", got=target, want="/models/NAME")
    return f"{address.scheme}://{address.netloc}", named or f"/models{path.partition('@')[0]}"


def _manifest(source: ModelSource, progress: ProgressSink) -> dict[str, Any]:
    """What the model is, with the size and SHA-256 of each file; those that nobody knows yet are computed."""
    known = {str(entry["name"]): str(entry.get("sha256") or "") for entry in source.manifest.get("files", [])}
    meter = Meter(progress, sum(file.bytes for file in source.files if not known.get(file.name)), "hash")
    files = []
    for file in source.files:
        digest = known.get(file.name)
        if not digest:
            with file.path.open("rb") as opened:
                digest = sha256(opened.fileno(), meter.add)
        files.append({"name": file.name, "bytes": file.bytes, "sha256": digest})
    kept = {name: value for name, value in source.manifest.items() if name not in OWN}
    return {**kept, "files": files}


class _Measured:
    """A file that tells how much of it was read, and ends when the job does."""

    def __init__(self, file: IO[bytes], meter: Meter, stop: threading.Event) -> None:
        self._file, self._meter, self._stop = file, meter, stop
        self.told = 0

    def read(self, count: int = BLOCK) -> bytes:
        if self._stop.is_set():
            raise OSError("the job has ended")
        data = self._file.read(count)
        self.told += len(data)
        self._meter.add(len(data))
        return data


def _send(file: SourceFile, url: str, meter: Meter, stop: threading.Event) -> None:
    headers = {**key_headers(), "Content-Type": "application/octet-stream", "Content-Length": str(file.bytes)}
    for attempt in range(1, TRIES + 1):
        with file.path.open("rb") as opened:
            measured: Any = _Measured(opened, meter, stop)
            try:
                with answer(url, headers, "PUT", measured) as response:
                    response.read()
                return
            except Unavailable:
                meter.add(-measured.told)
                if attempt == TRIES or stop.wait(2.0**attempt):
                    raise


def _finish(url: str, body: dict[str, Any]) -> str:
    """Have what was sent become a version; asks until it has."""
    while True:
        said = _ask("POST", url, body)
        if "version" in said:
            return str(said["version"])
        body = {**body, "task": str(said.get("task", ""))}
        time.sleep(ASK_S)


def _ask(method: str, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    headers = {**key_headers(), "Content-Type": "application/json"}
    with answer(url, headers, method, json.dumps(body).encode()) as response:
        try:
            said = json.loads(response.read())
        except ValueError:
            said = None
    if not isinstance(said, dict):
        raise Unavailable(f"{url} does not answer as an LLM OS does; is it the right address?")
    return said
