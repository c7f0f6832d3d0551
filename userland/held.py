"""What the objects of the sync and the async face share: a handle, the session it belongs to, and its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from llmos.syscalls.errors import BadHandle
from llmos.syscalls.shm import Mapping
from llmos.syscalls.types import (
    Buffer, BufferRef, Context, File, Handle, Lease, ModelInfo, Mount, ObjectInfo, Task,
)  # fmt: skip

if TYPE_CHECKING:
    from .aio import AsyncClient
    from .client import Client

C = TypeVar("C", bound="Client | AsyncClient")
ENDED = frozenset({"done", "failed", "cancelled"})
"""States of tasks after which nothing happens any more."""
Info = TypeVar("Info", bound=ModelInfo | Context | Task | Buffer | Lease | File | Mount | ObjectInfo)


class Opened(Generic[C, Info]):
    """An object that a call opened: its `info` as it was then, its `id`, its `handle`.

    Objects of one program that share a handle (a model loaded twice) close it together with the last of them.
    """

    def __init__(self, client: C, info: Info) -> None:
        assert info.handle is not None
        self.client = client
        self.info = info
        self.closed = False
        self._handle = info.handle
        self._session = client.welcome.session
        client.held[info.handle] += 1

    @property
    def handle(self) -> Handle:
        """The handle, for calls made by hand.

        Raises:
            BadHandle: it is closed, or its session ended with the kernel that opened it.
        """
        if self.closed:
            raise BadHandle(f"{self!r} is closed")
        if self.client.welcome.session != self._session:
            raise BadHandle(f"{self!r} belongs to session {self._session}, which ended with its kernel: open it again")
        return self._handle

    def let_go(self) -> Handle | None:
        """Mark the object closed; the handle that is to be closed now, if any."""
        if self.closed:
            return None
        self.closed = True
        if self.client.ended or self.client.welcome.session != self._session:
            return None
        held = self.client.held
        held[self._handle] -= 1
        if held[self._handle] > 0:
            return None
        del held[self._handle]
        return self._handle

    def __repr__(self) -> str:
        name = getattr(self.info, "name", "") or getattr(self.info, "path", "") or getattr(self.info, "id", "")
        return f"<{type(self).__name__} {name}>"


class Cursor:
    """Where the next read or write of a file goes on."""

    position: int = 0


class Region:
    """Shared memory that this process maps itself; no call is made to read or write it."""

    info: Buffer
    handle: Handle

    def map(self) -> Mapping:
        """The bytes as a memory view: `with buffer.map() as memory: memory.view[:4] = b"abcd"`."""
        return Mapping(self.info.path, writable=True, size=self.info.bytes)

    def read_bytes(self, count: int = -1, offset: int = 0) -> bytes:
        """A copy of the bytes from `offset`, all of them by default."""
        with Mapping(self.info.path, size=self.info.bytes) as memory:
            return bytes(memory.slice(offset, self.info.bytes - offset if count < 0 else count))

    def write_bytes(self, data: bytes, offset: int = 0) -> None:
        """Copy bytes in at `offset`."""
        with self.map() as memory:
            memory.slice(offset, len(data))[:] = data

    def ref(self, offset: int = 0, length: int | None = None) -> BufferRef:
        """A place in the buffer, to be passed where a call takes bytes."""
        return BufferRef(
            buffer=self.handle, offset=offset, length=self.info.bytes - offset if length is None else length
        )


class Whole(Generic[C]):
    """The system as a session sees it."""

    def __init__(self, client: C) -> None:
        self.client = client
        self.mounted: dict[tuple[str, Path], str] = {}
        """Host folders that were mounted to load models from them: (session, folder) to path."""
        self.mount_handles: dict[tuple[str, str], Handle] = {}
        """The handles that mounts were made with: (session, path) to handle."""

    @property
    def handle(self) -> Handle:
        """The handle of the system itself."""
        return self.client.welcome.system

    @property
    def session(self) -> str:
        """Stable id of the session."""
        return self.client.welcome.session

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.session}>"
