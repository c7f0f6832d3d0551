"""The `files` file system: a plain folder of the host, as `/home` and `/data` are.

A written file becomes visible when it is closed, whole: it is written in the tree's private folder and renamed. The
version of a file is made of its modification time, size and inode, so every change gives another one.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmos.drivers.contract import (
    FileInfo, FileSystem, FileSystemFactory, ModelSource, OpenHandle, ProgressSink, SourceFile,
)  # fmt: skip
from llmos.drivers.hookspecs import hookimpl
from llmos.syscalls.errors import BadArgument, Busy, Conflict, NotFound, NotSupported, ReadOnly, TooLarge

from .handles import ReadHandle, check_mode, check_version
from .paths import PRIVATE, Parts, bad_path, file_errors, is_text, join, names_in, open_file, open_folder, page, split
from .placing import place, publish
from .scratch import Scratch, Slot
from .writing import WriteHandle, version_of

MAX_LOCATED = 100_000
"""Files that one `locate` of a folder answers at most."""


class FolderFileSystem(FileSystem):
    """The tree below one folder.

    Raises:
        BadArgument: the source is not an absolute path.
        NotFound: there is no such folder.
    """

    def __init__(self, source: str) -> None:
        if not Path(source).is_absolute():
            raise BadArgument(
                f"the source {source!r} is not absolute", name="source", got=source, want="a folder such as /srv/data"
            )
        self._root = Path(source)
        if not self._root.is_dir():
            raise NotFound(f"there is no folder {source} on this machine; make it first")
        self._scratch = Scratch(self._root)
        self._located: dict[str, Parts] = {}
        self._staged: dict[str, tuple[Parts, Slot, Path]] = {}
        with suppress(PermissionError):  # a tree that cannot be written has nothing of ours to sweep
            self._scratch.sweep()

    def open(self, path: str, mode: str, expected_version: str | None = None) -> OpenHandle:
        parts = self._file_parts(path)
        if check_mode(mode) != "r":
            return WriteHandle(self._root, parts, mode, expected_version, self._scratch)
        with file_errors(path):
            descriptor = open_file(self._root, parts)
        handle = ReadHandle(path, descriptor, version_of(os.fstat(descriptor)))
        try:
            check_version(path, handle.version, expected_version)
        except Conflict:
            handle.close()
            raise
        return handle

    def list(self, path: str, after: str = "") -> Sequence[FileInfo]:
        parts = self._parts(path)
        with file_errors(path), open_folder(self._root, parts) as at:
            names = [name for name in names_in(at) if self._visible(parts, name)]
            shown = page(names, lambda name: join((*parts, name)), after)
            return [info for name in shown if (info := _info_if_there(at, parts, name)) is not None]

    def stat(self, path: str) -> FileInfo:
        parts = self._parts(path)
        with file_errors(path):
            if not parts:
                return _folder_info(parts, self._root.stat())
            with open_folder(self._root, parts[:-1]) as at:
                return _info(parts, os.stat(parts[-1], dir_fd=at, follow_symlinks=False))

    def remove(self, path: str) -> None:
        parts = self._parts(path)
        if not parts:
            raise ReadOnly("/ is the top of this file system and stays; unmount it instead")
        for held in self._located.values():
            if held[: len(parts)] == parts or parts[: len(held)] == held:
                raise Busy(f"{path} is being read as {join(held)}; wait until that work has ended")
        with file_errors(path, writing=True), open_folder(self._root, parts[:-1]) as at:
            if stat.S_ISDIR(os.stat(parts[-1], dir_fd=at, follow_symlinks=False).st_mode):
                os.rmdir(parts[-1], dir_fd=at)
            else:
                os.unlink(parts[-1], dir_fd=at)

    def locate(self, path: str, version: str = "") -> tuple[str, ModelSource]:
        """One file, or every file below a folder with its name relative to that folder. Links are refused."""
        parts = self._parts(path)
        found = self.stat(path)
        if version:
            check_version(path, found.version, version)
        with file_errors(path):
            files = [self._source_file(parts)] if found.kind == "file" else list(self._files_below(parts))
        token = uuid.uuid4().hex
        self._located[token] = parts
        return token, ModelSource(path=path, version=found.version, files=files)

    def release(self, token: str) -> None:
        """Also drops a staged folder that was not committed."""
        self._located.pop(token, None)
        staged = self._staged.pop(token, None)
        if staged is not None:
            staged[1].close()

    def stage(self, path: str) -> tuple[str, Path]:
        parts = self._file_parts(path)
        with file_errors(path, writing=True):
            slot = self._scratch.take()
            folder = slot.folder / "files"
            folder.mkdir(mode=0o755)
        self._staged[slot.id] = (parts, slot, folder)
        return slot.id, folder

    def commit(self, token: str, manifest: Mapping[str, Any], expected_version: str | None = None) -> str:
        """Let a staged folder appear, or the single file in it (`placing.publish`); there are no versions here.

        Without an expected version a model that is there is replaced, with an empty one nothing is.

        Raises:
            NotFound: no such token.
            Exists: something is there that is not replaced.
        """
        if token not in self._staged:
            raise NotFound(f"nothing is staged under {token!r}; it was committed or released already")
        parts, _slot, folder = self._staged[token]
        publish(self._root, parts, folder, manifest, replace=expected_version is None)
        self.release(token)
        return ""

    def bring(
        self, path: str, sources: Sequence[ModelSource | str], recipe: Mapping[str, Any], progress: ProgressSink
    ) -> Mapping[str, Any]:
        """A located model or folder as a plain folder, which appears whole. Option: replace.

        Raises:
            Exists: something is there, and `replace` is not set.
            NotSupported: the source is a URL.
        """
        options = dict(recipe.get("options") or {})
        replace = options.pop("replace", False)
        if options or len(sources) != 1:
            raise BadArgument("one source and the option replace are taken", name="recipe", got=str(recipe)[:80])
        (source,) = sources
        if isinstance(source, str):
            raise NotSupported(f"{source} is not brought into a plain folder", why="pull it into /models, then push")
        return place(self._root, self._file_parts(path), self._scratch, source, replace is True, progress)

    def _files_below(self, parts: Parts) -> Iterator[SourceFile]:
        count = 0
        waiting = [parts]
        while waiting:
            folder = waiting.pop()
            with open_folder(self._root, folder) as at:
                for name in names_in(at):
                    if not self._visible(folder, name):
                        continue
                    inner = (*folder, name)
                    if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                        waiting.append(inner)
                        continue
                    count += 1
                    if count > MAX_LOCATED:
                        raise TooLarge(f"{join(parts)} has over {MAX_LOCATED} files", limit=MAX_LOCATED, got=count)
                    yield self._source_file(inner, len(parts))

    def _source_file(self, parts: Parts, base: int = -1) -> SourceFile:
        # Opening it is the check: links and whatever is not a regular file are refused with their name.
        with file_errors(join(parts)):
            descriptor = open_file(self._root, parts)
        size = os.fstat(descriptor).st_size
        os.close(descriptor)
        return SourceFile(name="/".join(parts[base:]), path=self._root.joinpath(*parts), bytes=size)

    def _parts(self, path: str) -> Parts:
        parts = split(path)
        if parts[:1] == (PRIVATE,):
            raise NotFound(f"{path} does not exist: the name {PRIVATE} is reserved")
        return parts

    def _file_parts(self, path: str) -> Parts:
        parts = self._parts(path)
        if not parts or path.endswith("/"):
            raise bad_path(path, "names a folder; a file is expected")
        return parts

    def _visible(self, folder: Parts, name: str) -> bool:
        return is_text(name) and (bool(folder) or name != PRIVATE)


def _info_if_there(at: int, parts: Parts, name: str) -> FileInfo | None:
    try:
        return _info((*parts, name), os.stat(name, dir_fd=at, follow_symlinks=False))
    except FileNotFoundError:
        return None  # removed while the folder was read


def _info(parts: Parts, status: os.stat_result) -> FileInfo:
    if stat.S_ISDIR(status.st_mode):
        return _folder_info(parts, status)
    fields: Mapping[str, Any] = {}
    if not stat.S_ISREG(status.st_mode):
        fields = {"problem": "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"}
    return FileInfo(join(parts), "file", status.st_size, version_of(status), status.st_mtime, fields)


def _folder_info(parts: Parts, status: os.stat_result) -> FileInfo:
    return FileInfo(join(parts), "folder", mtime=status.st_mtime)


def open_source(source: str, config: Mapping[str, Any]) -> FileSystem:
    """Build the file system of one folder; there are no settings."""
    if config:
        raise NotSupported(f"the files driver has no setting {sorted(config)[0]!r}", why="it has no settings at all")
    return FolderFileSystem(source)


@hookimpl
def register_filesystems(register: Callable[[str, FileSystemFactory], None]) -> None:
    register("files", open_source)
