"""A file being written: invisible until it is closed, and gone if it is not."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from llmos.drivers.contract import OpenHandle
from llmos.syscalls.errors import Exists, NoSpace, NotSupported

from .handles import check_version
from .locks import locked_folder
from .paths import Parts, file_errors, join, open_file, open_folder
from .scratch import Scratch

MAX_BYTES = 1 << 62
"""Offsets beyond this do not fit the operating system's calls."""


def version_of(status: os.stat_result) -> str:
    """The version of a file in this state."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


class WriteHandle(OpenHandle):
    """Modes: w replaces (or makes) the file, x makes it, a adds to the end of what is there at `close`.

    In mode a the offset is ignored, as with O_APPEND. Folders on the way are made, because no call makes a folder.

    Raises:
        Exists: mode x and the name is taken, at open or at close.
        Conflict: the file has not the expected version, at open or at close; an empty text expects no file.
    """

    def __init__(self, root: Path, parts: Parts, mode: str, expected: str | None, scratch: Scratch) -> None:
        self._root, self._parts, self._mode, self._expected = root, parts, mode, expected
        self._path = join(parts)
        self._made: list[Parts] = []
        with file_errors(self._path, writing=True):
            before = self._before()
            self._slot = scratch.take()
            self._part = self._slot.folder / "data"
            self._descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._make_folders()
        self.version = "" if before is None else version_of(before)
        self.bytes = before.st_size if before is not None and mode == "a" else 0

    def read(self, offset: int, count: int) -> bytes:
        raise NotSupported(f"{self._path} is open for writing", why="open it with mode r to read")

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """Write all of `data`. Raises NoSpace; the file as it was before stays."""
        view = memoryview(data).cast("B")
        if self._mode == "a":
            offset = os.fstat(self._descriptor).st_size
        if offset + len(view) > MAX_BYTES:
            raise NoSpace(f"{self._path} cannot be {offset + len(view)} bytes long")
        done = 0
        with file_errors(self._path, writing=True):
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], offset + done)
        return done

    def close(self) -> str:
        try:
            with file_errors(self._path, writing=True), open_folder(self._root, self._parts[:-1], create=True) as at:
                # Readers see one file or the other; the lock is between writers that check a version first.
                with locked_folder(at):
                    self._publish(at, self._check(at))
                os.fsync(at)
                return version_of(os.fstat(self._descriptor))
        finally:
            self._end()

    def discard(self) -> None:
        self._end()
        for parts in reversed(self._made):
            # Whoever has put something there since keeps the folder.
            with suppress(OSError), open_folder(self._root, parts[:-1]) as at:
                os.rmdir(parts[-1], dir_fd=at)

    def _publish(self, at: int, before: os.stat_result | None) -> None:
        if before is not None:
            if self._mode == "a":
                self._prepend_current()
            os.fchmod(self._descriptor, stat.S_IMODE(before.st_mode))
        os.fsync(self._descriptor)
        os.rename(self._part, self._parts[-1], dst_dir_fd=at)

    def _prepend_current(self) -> None:
        """Put what the file holds now before what was written, in a new part."""
        whole = self._part.with_name("whole")
        current = open_file(self._root, self._parts)
        with os.fdopen(current, "rb") as old, whole.open("w+b") as new, self._part.open("rb") as added:
            shutil.copyfileobj(old, new, 1 << 20)
            shutil.copyfileobj(added, new, 1 << 20)
        os.close(self._descriptor)
        self._descriptor = os.open(whole, os.O_RDWR | os.O_CLOEXEC)
        self._part = whole

    def _before(self) -> os.stat_result | None:
        try:
            with open_folder(self._root, self._parts[:-1]) as at:
                return self._check(at)
        except FileNotFoundError:
            check_version(self._path, "", self._expected)
            return None

    def _check(self, at: int) -> os.stat_result | None:
        """The file as it is now, after checking that this mode and the expected version allow to write it."""
        try:
            found = os.stat(self._parts[-1], dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            check_version(self._path, "", self._expected)
            return None
        if self._mode == "x":
            raise Exists(f"{self._path} exists already; use mode w to replace it")
        os.close(open_file(self._root, self._parts))  # refuses folders, links and special files
        check_version(self._path, version_of(found), self._expected)
        return found

    def _make_folders(self) -> None:
        for depth in range(1, len(self._parts)):
            folder = self._parts[:depth]
            with open_folder(self._root, folder[:-1]) as at:
                try:
                    os.mkdir(folder[-1], dir_fd=at)
                except FileExistsError:
                    continue
            self._made.append(folder)

    def _end(self) -> None:
        os.close(self._descriptor)
        self._slot.close()
