"""Maps the shared buffers that requests name, and keeps the mappings."""

from __future__ import annotations

from pathlib import Path

from llmos.syscalls.driver import BufferFile
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.shm import Mapping

_KEPT_MAPPINGS = 16


class Buffers:
    """Mapped buffer files, kept so that a buffer used again costs nothing.

    A mapping is dropped, and unmapped once no view of it is in use, when its file was replaced or removed.
    """

    def __init__(self, *, writable: bool = False) -> None:
        self._writable = writable
        self._mapped: dict[str, tuple[tuple[int, int, int], Mapping]] = {}

    def view(self, file: BufferFile) -> Mapping:
        """The mapping of a buffer file.

        Raises:
            BadArgument: the file is gone or smaller than said.
        """
        identity = _identity(file.path)
        if identity is None or identity[2] < file.bytes:
            raise BadArgument(
                f"buffer {file.path} cannot be mapped: it is gone or has fewer than {file.bytes} bytes", name="buffer"
            )
        known = self._mapped.pop(file.path, None)
        if known is None or known[0] != identity:
            known = identity, Mapping(file.path, writable=self._writable)
        self._mapped[file.path] = known
        if len(self._mapped) > _KEPT_MAPPINGS:
            del self._mapped[next(iter(self._mapped))]
        return known[1]

    def prune(self) -> None:
        """Let go of files that are no longer there: an unlinked file keeps its memory while it is mapped."""
        for path in [path for path, (identity, _map) in self._mapped.items() if _identity(path) != identity]:
            del self._mapped[path]

    def __len__(self) -> int:
        return len(self._mapped)


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        status = Path(path).lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_size
