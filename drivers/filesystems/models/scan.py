"""What files a model's folder holds, and whether each of them may be touched."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmos.syscalls.errors import BadModel, NotFound

from ..paths import is_text, open_file

MANIFEST = "manifest.json"
VERSIONS = "versions"
REFS = "refs.json"
MAX_FILES = 10_000
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"})
"""Formats that run code when they are read."""


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A regular file of a model. `name` is relative to its folder; `stamp` changes when the content may have."""

    name: str
    path: Path
    bytes: int
    mtime: float
    stamp: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Scan:
    """A model's files by name; `problem` is the first one that must not be used."""

    files: Mapping[str, ScannedFile]
    problem: BadModel | None = None


def bad(file: str, why: str) -> BadModel:
    """A BadModel whose text names the file."""
    return BadModel(f"{file}: {why}", file=file, why=why)


def scan(folder: Path) -> Scan:
    """The files below a folder, without hidden ones and without the versions kept beside them. Raises OSError."""
    files: dict[str, ScannedFile] = {}
    problem: BadModel | None = None
    for name, entry in _walk(folder, ""):
        if len(files) >= MAX_FILES:
            return Scan(files, bad(name, f"the folder has over {MAX_FILES} files; this does not look like a model"))
        found = _examine(folder, name, entry)
        if isinstance(found, ScannedFile):
            files[name] = found
        else:
            problem = problem or found
    return Scan(dict(sorted(files.items())), problem)


def scanned(name: str, path: Path) -> ScannedFile:
    """The file at a path as it is now. Raises OSError."""
    status = path.stat()
    stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return ScannedFile(name, path, status.st_size, status.st_mtime, stamp)


def open_scanned(folder: Path, file: ScannedFile) -> int:
    """A descriptor of a model's file, opened in the folder that it really lies in.

    So a link that is put in its place meanwhile leads nowhere. Raises NotFound, OSError.
    """
    real = file.path.resolve()
    for home in allowed_folders(folder):
        if real.is_relative_to(home):
            return open_file(home, real.relative_to(home).parts)
    raise NotFound(f"{file.name} is a link that leaves the model's folder")


def allowed_folders(folder: Path) -> tuple[Path, ...]:
    """Where a link inside a model may lead: its own folder, and the blobs of the Hugging Face cache it belongs to."""
    real = folder.resolve()
    repository = real.parent.parent
    if real.parent.name == "snapshots" and repository.name.startswith("models--"):
        return real, repository / "blobs"
    return (real,)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or (not prefix and entry.name in (VERSIONS, REFS)):
                continue
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), name + "/")
            else:
                yield name, entry


def _examine(folder: Path, name: str, entry: os.DirEntry[str]) -> ScannedFile | BadModel:
    if not is_text(name):
        return bad(name.encode(errors="replace").decode(), "its name is not valid Unicode; rename it")
    path = Path(entry.path)
    if entry.is_symlink():
        target = path.resolve()
        if not any(target.is_relative_to(home) for home in allowed_folders(folder)):
            return bad(name, f"is a link that leaves the model's folder (to {target}); copy the file into the folder")
        if not target.exists():
            return bad(name, f"is a link to {target}, which does not exist")
    found = scanned(name, path)
    if not stat.S_ISREG(path.stat().st_mode):
        return bad(name, "is not a regular file; remove it or copy the file it stands for")
    return found
