"""A whole folder that appears at once: filled out of sight, put safely on disk, then renamed into its place."""

from __future__ import annotations

import ctypes
import json
import os
import stat
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from llmos.drivers.contract import ModelSource, ProgressSink, SourceFile
from llmos.syscalls.errors import BadModel, Exists

from .copying import copy
from .paths import Parts, file_errors, join, names_in, open_folder, sync_folder
from .scratch import Scratch

MANIFEST = "manifest.json"
MARKERS = frozenset({"config.json", "adapter_config.json"})
AT_FDCWD = -100
NOREPLACE, EXCHANGE = 1, 2
"""Flags of renameat2(2)."""


def place(
    root: Path, parts: Parts, scratch: Scratch, source: ModelSource, replace: bool, progress: ProgressSink
) -> dict[str, Any]:
    """Copy located files to the folder `parts` of the tree below `root`, with their manifest if they have one.

    Raises:
        Exists: something is there, and `replace` is not set.
        BadModel: a file has a name that leads out of the folder.
        NoSpace, ReadOnly, NotFound.
    """
    path = join(parts)
    total = sum(file.bytes for file in source.files)
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total, "bytes", "copy")

    with file_errors(path, writing=True):
        if not replace and root.joinpath(*parts).exists():
            raise _exists(path)
        with closing(scratch.take()) as slot, open_folder(root, parts[:-1], create=True) as at:
            folder = slot.folder / "files"
            folder.mkdir(mode=0o755)
            tell(0)
            for file in source.files:
                _copy(file, folder, tell)
            _finish(folder, source.manifest)
            _rename(folder, at, parts[-1], replace, path)
            os.fsync(at)
    return {"version": source.version, "files": len(source.files), "bytes": total}


def publish(root: Path, parts: Parts, folder: Path, manifest: Mapping[str, Any], replace: bool) -> None:
    """Let a filled folder be the one at `parts`. Where it holds a single file, whose ending that name has too, that
    file is what appears.

    Raises:
        Exists: something is there, and `replace` is not set, or it is no model (or no file).
        NoSpace, ReadOnly.
    """
    path, name = join(parts), parts[-1]
    files = [file for file in folder.rglob("*") if file.is_file()]
    alone = len(files) == 1 and bool(files[0].suffix) and files[0].suffix == PurePosixPath(name).suffix
    with file_errors(path, writing=True):
        for file in files:
            file.chmod(0o644)
        _finish(folder, {} if alone else manifest)
        with open_folder(root, parts[:-1], create=True) as at:
            if alone:
                _rename_file(files[0], at, name, replace, path)
            else:
                _rename(folder, at, name, replace, path)
            os.fsync(at)


def _rename_file(file: Path, at: int, name: str, replace: bool, path: str) -> None:
    try:
        _renameat2(file, at, name, NOREPLACE)
    except FileExistsError:
        if not replace:
            raise _exists(path) from None
        if not stat.S_ISREG(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise Exists(f"{path} is no file, so it is not replaced; name another one") from None
        os.rename(file, name, dst_dir_fd=at)


def _copy(file: SourceFile, folder: Path, tell: Any) -> None:
    name = PurePosixPath(file.name)
    if name.is_absolute() or ".." in name.parts:
        raise BadModel(f"{file.name}: its name leads out of the folder", file=file.name, why="leads out of the folder")
    with file.path.open("rb") as opened:
        copy(opened.fileno(), folder / name, tell)
    (folder / name).chmod(0o644)


def _finish(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest and wait until everything is on the disk."""
    if manifest:
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    for inner, _folders, names in os.walk(folder):
        for name in names:
            with Path(inner, name).open("rb") as opened:
                os.fsync(opened.fileno())
        sync_folder(Path(inner))


def _rename(folder: Path, at: int, name: str, replace: bool, path: str) -> None:
    """Rename without ever replacing what is there; with `replace` the two change places, if there is one."""
    try:
        _renameat2(folder, at, name, NOREPLACE)
    except FileExistsError:
        if not replace:
            raise _exists(path) from None
        _check_copy(at, name, path)
        _renameat2(folder, at, name, EXCHANGE)


def _check_copy(at: int, name: str, path: str) -> None:
    """Only a copy of a model or an empty folder is replaced: what else is there may be a home. Raises Exists."""
    there = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        names = set(names_in(there))
    finally:
        os.close(there)
    if names and not names & MARKERS:
        raise Exists(f"{path} is a folder that holds no model, so it is not replaced; name another one")


def _renameat2(folder: Path, at: int, name: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(folder), at, os.fsencode(name), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)


def _exists(path: str) -> Exists:
    return Exists(f"{path} exists already; --force replaces it")
