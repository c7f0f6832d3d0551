"""Shared buffers: files of the kernel in a private folder on a memory file system.

A file is made by `ftruncate`, not `fallocate`: zeroing a gigabyte would stop the loop for a third of a second. A full
file system would kill a writer with SIGBUS: so all promised bytes are counted against the free ones first.
A buffer that a session gives back is kept for the same session, whose authority it never left, so its pages stay warm.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from llmos.syscalls.errors import NoResources

PAGE = 4096
BLOCK = 512
"""Of `st_blocks`; see stat(2)."""
_KEPT_BYTES = 128 << 20


@dataclass(frozen=True)
class BufferFile:
    """One file; `size` is its length, at least what was asked for."""

    path: Path
    size: int


class BufferPool:
    """Creates, reuses and deletes buffer files.

    Args:
        folder: made here, mode 0700, removed with everything in it by `close`.
        uid: the kernel's own user; buffers of others lie in folders that only they can open.
        kept_bytes: how much one session's returned buffers may keep.
    """

    def __init__(self, folder: Path, uid: int, kept_bytes: int = _KEPT_BYTES) -> None:
        self.folder = folder
        self._uid = uid
        self._kept_limit = kept_bytes
        self._kept: defaultdict[str, list[BufferFile]] = defaultdict(list)
        self._numbers = count(1)
        self.promised = 0
        self._of: Counter[str] = Counter()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._sweep()

    def take(self, size: int, session: str, uid: int) -> BufferFile:
        """A buffer of at least `size` bytes; a new one reads as zeros.

        Raises:
            NoResources: the memory file system has not that much left, or does not let us make it.
        """
        rounded = -(-size // PAGE) * PAGE
        for position, kept in enumerate(self._kept[session]):
            if kept.size == rounded:
                return self._kept[session].pop(position)
        self._check_room(rounded)
        try:
            path = self._make(rounded, uid)
        except OSError as error:
            raise NoResources(
                f"no buffer of {size} bytes can be made in {self.folder}: {error}", what="buffer bytes"
            ) from error
        self.promised += rounded
        self._of[session] += rounded
        return BufferFile(path, rounded)

    def held(self, session: str) -> int:
        """Bytes of the buffers that were made for a session, those that are kept for it included."""
        return self._of[session]

    def present(self) -> int:
        """Bytes that all files here take of the memory now: pages that nobody has touched take none."""
        return sum(path.stat().st_blocks * BLOCK for path in self._files())

    def lease_path(self, name: str, uid: int) -> Path:
        """Where the driver of a lease may make its file; what it makes is handed over by `adopt`."""
        return self._folder_for(uid) / name

    def adopt(self, path: Path, size: int, uid: int) -> BufferFile:
        """The file of a lease is there, with all its bytes: it is its user's now."""
        if uid != self._uid:
            os.chown(path, uid, -1)
        self.promised += size
        return BufferFile(path, size)

    def end(self, lease: BufferFile) -> None:
        """Delete the file of a lease, if it is still there."""
        self._delete(lease)

    def _make(self, size: int, uid: int) -> Path:
        path = self._folder_for(uid) / f"b{next(self._numbers)}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, size)
            if uid != self._uid:
                os.fchown(fd, uid, -1)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(fd)
        return path

    def give(self, buffer: BufferFile, session: str) -> None:
        """Take a buffer back."""
        kept = self._kept[session]
        if sum(b.size for b in kept) + buffer.size <= self._kept_limit:
            kept.append(buffer)
        else:
            self.discard(buffer, session)

    def discard(self, buffer: BufferFile, session: str) -> None:
        """Take a buffer back and keep nothing of it."""
        self._delete(buffer)
        self._of[session] -= buffer.size

    def forget(self, session: str) -> None:
        """The session has ended: delete what was kept for it."""
        for buffer in self._kept.pop(session, ()):
            self.discard(buffer, session)
        if not self._of[session]:
            self._of.pop(session, None)

    def _delete(self, buffer: BufferFile) -> None:
        buffer.path.unlink(missing_ok=True)
        self.promised -= buffer.size

    def _check_room(self, size: int) -> None:
        stat = os.statvfs(self.folder)
        capacity = stat.f_blocks * stat.f_frsize
        left = min(stat.f_bavail * stat.f_frsize, capacity - self.promised)
        if size > left:
            raise NoResources(
                f"no room for a buffer of {size} bytes: {self.folder} has {max(0, left)} of {capacity} bytes left",
                what="buffer bytes",
                limit=max(0, left),
            )

    def _folder_for(self, uid: int) -> Path:
        if uid == self._uid:
            return self.folder
        folder = self.folder / f"u{uid}"
        if not folder.exists():
            folder.mkdir(mode=0o700)
            os.chown(folder, uid, -1)
            self.folder.chmod(0o711)
        return folder

    def _sweep(self) -> None:
        """Delete what a kernel that was killed has left in the same place."""
        for path in self._files():
            path.unlink()

    def _files(self) -> list[Path]:
        """Buffers `b1`, leases `l-...`, those of other users in folders of theirs."""
        names = [f"{folder}{name}" for folder in ("", "u[0-9]*/") for name in ("b[0-9]*", "l-*")]
        return [path for name in names for path in self.folder.glob(name)]

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
