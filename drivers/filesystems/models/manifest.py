"""The stored manifest of a model: what it must look like to be used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .scan import MANIFEST, bad

FORMAT = 1
"""The manifest format that this version writes."""
MAX_JSON = 32 << 20
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a manifest's `files`; `sha256` is empty when the manifest gives none."""

    name: str
    bytes: int
    sha256: str


def read_object(path: Path, name: str) -> dict[str, Any]:
    """A JSON object from a file of a model. Raises BadModel naming the file, OSError."""
    size = path.stat().st_size
    if size > MAX_JSON:
        raise bad(name, f"is {size} bytes long, which is too much for JSON (at most {MAX_JSON})")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise bad(name, f"is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise bad(name, "is not a JSON object")
    return found


def listed_files(manifest: Mapping[str, Any]) -> dict[str, Listed]:
    """The files that a stored manifest names. Raises BadModel when the manifest is not one that can be used."""
    written = manifest.get("format", FORMAT)
    if written != FORMAT:
        raise bad(MANIFEST, f"has the format {written!r}; this version reads {FORMAT}: update llmos")
    entries = manifest.get("files")
    if not isinstance(entries, list):
        raise bad(MANIFEST, "has no list of files")
    found: dict[str, Listed] = {}
    for entry in entries:
        file = _listed(entry)
        if file.name in found:
            raise bad(MANIFEST, f"lists {file.name} twice")
        found[file.name] = file
    return found


def _listed(entry: Any) -> Listed:
    match entry:
        case {"name": str(name), "bytes": int(size)} if size >= 0:
            digest = entry.get("sha256") or ""
        case _:
            raise bad(MANIFEST, f"has an entry without name and bytes: {str(entry)[:80]}")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or str(path) != name or name == ".":
        raise bad(MANIFEST, f"lists {name!r}, which is not a path inside the model's folder")
    if digest and not (isinstance(digest, str) and SHA256.fullmatch(digest)):
        raise bad(MANIFEST, f"gives {name} a sha256 that is not 64 hexadecimal digits")
    return Listed(name, size, digest)
