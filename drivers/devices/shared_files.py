"""Bytes of the machine's memory that other programs map: files of a memory file system, one for each lease."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from llmos.syscalls.errors import Exists, NoDeviceMemory, NotFound

from ..contract import Leased, Row

BLOCK = 512
"""Bytes in the unit of `st_blocks`; stat(2)."""


class SharedFiles:
    """The files that were made and not ended yet."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Path, int]] = {}

    def give(self, lease: str, size: int, path: str) -> Leased:
        """Make a file of zeros for this user alone, whose memory is taken now: nobody who maps it runs out of it later.

        Raises NoDeviceMemory, Exists.
        """
        if lease in self._files:
            raise Exists(f"there is a lease {lease} already")
        file = Path(path)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError as error:
            raise Exists(f"{path} exists already; a lease makes its own file") from error
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            file.unlink()
            system = os.statvfs(file.parent)
            said = f"{file.parent} gives no {size} bytes to share: {error.strerror}"
            raise NoDeviceMemory(said, needed=size, free=system.f_bavail * system.f_frsize) from error
        finally:
            os.close(descriptor)
        self._files[lease] = file, size
        return Leased("shm", path=path)

    def end(self, lease: str) -> int:
        """Remove its file; who has it mapped keeps the bytes until it unmaps them. Raises NotFound."""
        if lease not in self._files:
            raise NotFound(f"there is no lease {lease} on this device")
        file, size = self._files.pop(lease)
        file.unlink(missing_ok=True)
        return size

    def rows(self) -> Sequence[Row]:
        """What each takes of the memory, as the file system counts it."""
        return [
            Row("lease", lease, predicted=size, allocator=size, driver=_taken(file))
            for lease, (file, size) in self._files.items()
        ]

    def close(self) -> None:
        """End all."""
        for lease in list(self._files):
            self.end(lease)


def _taken(file: Path) -> int:
    try:
        return file.stat().st_blocks * BLOCK
    except FileNotFoundError:
        return 0
