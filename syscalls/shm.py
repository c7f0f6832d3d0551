"""Maps shared buffers: files that the kernel owns. This side never creates, resizes or deletes one.

Plain files in a private folder, not `multiprocessing.shared_memory`, whose resource tracker on Python 3.11 unlinks a
segment when any process that merely attached to it exits.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from types import TracebackType

from .errors import BadArgument


class Mapping:
    """One buffer file, mapped. Slices of `view` read and write it without a copy.

    Args:
        path: the file, as given by the kernel.
        writable: map for writing too.
        size: bytes to map; the whole file by default.
    """

    def __init__(self, path: str | Path, *, writable: bool = False, size: int | None = None) -> None:
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            length = os.fstat(fd).st_size if size is None else size
            prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            self._map = mmap.mmap(fd, length, flags=mmap.MAP_SHARED, prot=prot)
        finally:
            os.close(fd)
        self.view = memoryview(self._map)

    def __len__(self) -> int:
        return len(self.view)

    def slice(self, offset: int, length: int) -> memoryview:
        """The bytes `[offset, offset + length)`.

        Raises:
            BadArgument: they do not lie inside the buffer.
        """
        if offset < 0 or length < 0 or offset + length > len(self.view):
            raise BadArgument(
                f"bytes {offset}..{offset + length} lie outside the buffer of {len(self.view)} bytes",
                name="offset",
                got=str(offset + length),
                want=f"at most {len(self.view)}",
            )
        return self.view[offset : offset + length]

    def close(self) -> None:
        self.view.release()
        self._map.close()

    def __enter__(self) -> Mapping:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
