"""Files opened for reading."""

from __future__ import annotations

import os

from llmos.drivers.contract import OpenHandle
from llmos.syscalls.errors import BadArgument, Conflict

from .paths import file_errors

MODES = ("r", "w", "a", "x")


def check_mode(mode: str) -> str:
    """One of the four modes, else BadArgument."""
    if mode not in MODES:
        raise BadArgument(f"the mode {mode!r} is unknown; use r, w, a or x", name="mode", got=mode, want="r, w, a or x")
    return mode


def check_version(path: str, found: str, expected: str | None) -> None:
    """Raises Conflict unless `expected` is None or the version found; an empty text means that nothing is there."""
    if expected is None or expected == found:
        return
    now = f"its version is {found}" if found else "it does not exist"
    wanted = f"version {expected}" if expected else "no file yet"
    raise Conflict(f"{path} has changed: expected {wanted}, but {now}; read it again first", version=found)


class ReadHandle(OpenHandle):
    """A regular file behind a descriptor that it owns, readable also when its name is replaced."""

    def __init__(self, path: str, descriptor: int, version: str) -> None:
        self.bytes = os.fstat(descriptor).st_size
        self.version = version
        self._path = path
        self._descriptor = descriptor

    def read(self, offset: int, count: int) -> bytes:
        size = os.fstat(self._descriptor).st_size
        if offset >= size:
            return b""
        with file_errors(self._path):
            return os.pread(self._descriptor, min(count, size - offset), offset)

    def close(self) -> str:
        os.close(self._descriptor)
        return self.version

    def discard(self) -> None:
        self.close()


class BytesHandle(OpenHandle):
    """A file that exists in memory only."""

    def __init__(self, data: bytes, version: str) -> None:
        self.bytes = len(data)
        self.version = version
        self._data = data

    def read(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]

    def close(self) -> str:
        return self.version
