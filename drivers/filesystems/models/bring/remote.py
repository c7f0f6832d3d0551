"""Models of another LLM OS: `http://HOST:PORT/models/NAME[@VERSION]`, by the store routes of its gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from llmos.syscalls.errors import BadArgument, Unavailable

from ..derive import is_part
from ..manifest import listed_files
from .fetch import Remote, fetch, move
from .folder import check_name
from .job import OWN, Filled, Wanted
from .partial import finished, partial
from .web import get_json

STARTS = ("http://", "https://", "llmos+http://", "llmos+https://")
STORE = "/api/v1/store"
KEY = "LLMOS_REMOTE_KEY"
"""The environment variable with the key for the other gateway."""


def fill(wanted: Wanted, folder: Path) -> Filled:
    """Fetch a model of another LLM OS.

    Raises:
        BadArgument: the URL names no model.
        NotFound, Denied: there is no such model, or the key is missing or may not read.
        BadModel: a file is damaged.
        Unavailable: it cannot be reached, or is no LLM OS.
    """
    base, path = parse(str(wanted.source))
    headers = key_headers()
    info = get_json(f"{base}{STORE}{quote(path)}", headers)
    version, manifest = info.get("version"), info.get("manifest")
    if not isinstance(version, str) or not isinstance(manifest, dict):
        raise Unavailable(f"{base} does not answer as an LLM OS does; is it the right address?")
    model = path.partition("@")[0]
    origin = f"{base}{model}@{version}"
    files = [
        Remote(check_name(file.name), f"{base}{STORE}{quote(f'{model}@{version}/{file.name}')}", file.bytes,
               file.sha256, headers=headers)
        for file in listed_files(manifest).values() if is_part(file.name)
    ]  # fmt: skip
    wanted.ready(origin)
    with partial(wanted.root, origin, wanted.progress) as place:
        wanted.ready(origin)
        got = fetch(files, place, wanted.progress)
        move(files, place, folder)
        finished(place)
    kept: dict[str, Any] = {name: value for name, value in manifest.items() if name not in OWN}
    return Filled({**kept, "origin": origin}, got.known, got.bytes)


def parse(source: str) -> tuple[str, str]:
    """The gateway's address and the path of a model, `/models/NAME[@VERSION]`. Raises BadArgument."""
    address = urlsplit(source.removeprefix("llmos+"))
    if not address.hostname or address.username or address.query or address.fragment:
        want = "http://HOST:PORT/models/NAME"
        raise BadArgument(f"{source!r} is no address of a model", name="source", got=source, want=want)
    path = address.path.rstrip("/")
    if not path.startswith("/models/") or ".." in path.split("/"):
        want = f"{address.scheme}://{address.netloc}/models/NAME"
        raise BadArgument(f"{source} names no model of that LLM OS", name="source", got=source, want=want)
    return f"{address.scheme}://{address.netloc}", path


def key_headers() -> dict[str, str]:
    """The key for another LLM OS from the environment, if there is one."""
    key = os.environ.get(KEY, "")
    return {"Authorization": f"Bearer {key}"} if key else {}
