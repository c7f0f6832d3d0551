"""File calls: a path finds its mount, the mount its driver; the kernel's own tables answer for themselves.

Bytes above the inline limit go through a shared buffer that the driver fills or reads; the kernel never copies them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from llmos.syscalls.driver import (
    BufferFile, HostClose, HostFsControl, HostList, HostOpen, HostRead, HostRemove, HostSearch, HostStat, HostWrite,
)  # fmt: skip
from llmos.syscalls.errors import (
    BadArgument, LlmosError, NotSupported, PeerGone, ReadOnly, TooLarge,
)  # fmt: skip
from llmos.syscalls.types import ALL_RIGHTS, BufferOut, BufferRef, Data, Done, Entry, File, Hit, Kind, Right, Written
from llmos.syscalls.wire import LIMITS

from .link import Link
from .namespace import MountPoint, told_from_outside
from .objects import BufferObject, FileObject
from .pending import Future
from .policy import KERNEL_FILESYSTEM
from .procfs import ProcFs
from .requests import Request
from .session import Session
from .supervisor import Driver

if TYPE_CHECKING:
    from .core import Kernel

PAGE_ENTRIES = 1000


class FileService:
    """The namespace as files."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._proc = ProcFs(kernel)

    async def _link(self, point: MountPoint, path: str) -> tuple[Driver, Link]:
        driver = self._kernel.filesystem(point.filesystem, path)
        await self._kernel.supervisor.wait_ready(driver)
        assert driver.link is not None
        return driver, driver.link

    # ---- paths

    async def entries(self, session: Session, path: str, after: str) -> list[Entry]:
        """Entries of a folder by path, with the mount points below it."""
        mounted = [_folder(f"{path.rstrip('/')}/{name}") for name in session.mounts.children(path)]
        try:
            point, inner = session.mounts.resolve(path)
        except LlmosError:
            if not mounted:
                raise
            return [entry for entry in mounted if entry.path > after]
        if point.filesystem == KERNEL_FILESYSTEM:
            found = self._proc.list(point.source, inner)
        else:
            _, link = await self._link(point, path)
            start = inner.rstrip("/") + after.removeprefix(path.rstrip("/")) if after else ""
            with told_from_outside(inner, path):
                found = await link.call(HostList(source=point.source, path=inner, after=start))
        entries = {entry.path: entry for entry in (_outer(e, inner, path) for e in found)}
        entries.update({entry.path: entry for entry in mounted})
        return sorted((e for e in entries.values() if e.path > after), key=lambda e: e.path)[:PAGE_ENTRIES]

    async def stat(self, session: Session, path: str) -> Entry:
        try:
            point, inner = session.mounts.resolve(path)
        except LlmosError:
            if session.mounts.children(path):
                return _folder(path)
            raise
        if point.filesystem == KERNEL_FILESYSTEM:
            return _outer(self._proc.stat(point.source, inner), inner, path)
        _, link = await self._link(point, path)
        with told_from_outside(inner, path):
            return _outer(await link.call(HostStat(source=point.source, path=inner)), inner, path)

    async def remove(self, session: Session, path: str) -> Done:
        point, inner = session.mounts.writable(path)
        if point.filesystem == KERNEL_FILESYSTEM:
            raise NotSupported(f"{path} is made by the kernel and cannot be removed", why="not a stored file")
        _, link = await self._link(point, path)
        with told_from_outside(inner, path):
            return await link.call(HostRemove(source=point.source, path=inner))

    async def search(
        self, session: Session, path: str, query: str, filters: dict[str, object], limit: int
    ) -> list[Hit]:
        point, inner = session.mounts.resolve(path)
        if point.filesystem == KERNEL_FILESYSTEM:
            raise NotSupported(f"{path} is made by the kernel and has no index; list it", why="not searchable")
        _, link = await self._link(point, path)
        call = HostSearch(source=point.source, path=inner, query=query, filters=filters, limit=limit)
        with told_from_outside(inner, path):
            hits = await link.call(call)
        return [msgspec.structs.replace(hit, path=_outside(hit.path, inner, path)) for hit in hits]

    async def control(self, point: MountPoint, action: str, options: dict[str, object]) -> dict[str, object]:
        """alias, tag, rollback, fsck, gc of a mounted file system; changing ones need a writable mount."""
        if point.filesystem == KERNEL_FILESYSTEM:
            raise NotSupported(f"{point.path} has no action {action}", why="made by the kernel")
        looks = action == "fsck" and not options.get("repair")
        if not looks and point.mode != "rw":
            raise ReadOnly(f"{action}: {point.path} is mounted ro")
        _, link = await self._link(point, point.path)
        inner = "/" + str(options.get("name", "")).strip("/")
        with told_from_outside(inner, (point.path.rstrip("/") + inner).removesuffix("/") or "/"):
            return (await link.call(HostFsControl(source=point.source, action=action, options=options))).fields

    async def check_source(self, point: MountPoint) -> None:
        """A source that cannot be opened is refused when it is mounted, not when it is first used."""
        _, link = await self._link(point, point.path)
        await link.call(HostStat(source=point.source, path="/"))

    # ---- open files

    async def open(self, request: Request, path: str, mode: str, expected: str | None) -> File:
        session = request.session
        point, inner = session.mounts.resolve(path) if mode == "r" else session.mounts.writable(path)
        found = FileObject(
            id=self._kernel.new_id("f"), kind=Kind.FILE, name=path, owner=session.owner, path=path, mode=mode
        )
        if point.filesystem == KERNEL_FILESYSTEM:
            if mode != "r":
                raise ReadOnly(f"{path} is made by the kernel and can only be read")
            found.content = self._proc.read(point.source, inner)
            found.bytes = len(found.content)
        else:
            driver, link = await self._link(point, path)
            call = HostOpen(source=point.source, path=inner, mode=mode, expected_version=expected)
            with told_from_outside(inner, path):
                opened = await self._kernel.runner.kept(
                    link.call(call), lambda late: link.call(HostClose(token=late.token, discard=mode != "r"))
                )
            found.driver, found.link, found.token, found.inner = driver, link, opened.token, inner
            found.bytes, found.version = opened.bytes, opened.version
        rights = ALL_RIGHTS - ({Right.WRITE} if mode == "r" else set())
        handle = self._kernel.add_object(found, session, rights)
        return File(handle=handle, path=path, bytes=found.bytes, version=found.version)

    async def read(self, request: Request, found: FileObject, offset: int, count: int) -> Data:
        if found.content is not None:
            data = found.content[offset : offset + count]
            if len(data) <= LIMITS.inline_bytes:
                return Data(data=data, eof=offset + count >= len(found.content))
            return Data(data=data[: LIMITS.inline_bytes], eof=False)
        link = self._link_of(found)
        wanted = min(count, max(0, found.bytes - offset)) if found.mode == "r" else count
        if wanted <= LIMITS.inline_bytes:
            with told_from_outside(found.inner, found.path):
                return await link.call(HostRead(token=found.token, offset=offset, count=wanted))
        buffer = self._kernel.holdings.make_buffer(request.session, wanted)
        into = BufferFile(path=str(buffer.file.path), bytes=buffer.file.size)
        reading = link.call(HostRead(token=found.token, offset=offset, count=wanted, into=into))
        try:
            with told_from_outside(found.inner, found.path):
                answer = await reading
        except LlmosError:
            self._kernel.runner.spawn(self._drop_after(reading, buffer), lambda _value, _error: None)
            raise
        length = answer.data.length if isinstance(answer.data, BufferRef) else 0
        handle = self._kernel.add_object(buffer, request.session, ALL_RIGHTS)
        return Data(data=BufferOut(buffer=handle, offset=0, length=length), eof=answer.eof, path=into.path)

    async def _drop_after(self, reading: Future[Data], buffer: BufferObject) -> None:
        """The driver writes into the buffer until it answers: nobody else may have it before."""
        try:
            await reading
        finally:
            self._kernel.holdings.drop_buffer(buffer)

    async def write(self, request: Request, found: FileObject, offset: int, data: bytes | BufferRef) -> Written:
        link = self._link_of(found)
        if isinstance(data, bytes):
            if len(data) > LIMITS.inline_bytes:
                raise TooLarge(
                    f"{len(data)} bytes in the message; at most {LIMITS.inline_bytes} go inline, use a buffer",
                    limit=LIMITS.inline_bytes,
                    got=len(data),
                )
            call = HostWrite(token=found.token, offset=offset, data=data)
        else:
            buffer = self._kernel.inference.buffer(request, data.buffer, Right.READ)
            _check_range(data, buffer)
            call = HostWrite(
                token=found.token,
                offset=offset,
                source=BufferFile(path=str(buffer.file.path), bytes=buffer.bytes),
                source_offset=data.offset,
                source_length=data.length,
            )
        with told_from_outside(found.inner, found.path):
            written = await link.call(call)
        found.bytes = max(found.bytes, offset + written.count)
        return written

    async def close(self, found: FileObject) -> Done:
        """Publish what was written; the caller has given up the last handle."""
        assert found.link is not None  # what the kernel makes is never open for writing
        with told_from_outside(found.inner, found.path):
            await found.link.call(HostClose(token=found.token))
        return Done()

    def abandon(self, found: FileObject) -> None:
        """The program is gone: what it wrote and did not close is dropped."""
        if found.link is not None and found.token:
            found.link.call(HostClose(token=found.token, discard=found.mode != "r"))

    def _link_of(self, found: FileObject) -> Link:
        assert found.driver is not None and found.link is not None
        if found.driver.link is not found.link:
            raise PeerGone(f"{found.path}: its driver {found.driver.name} has restarted since; open the file again")
        return found.link


def _check_range(data: BufferRef, buffer: BufferObject) -> None:
    if data.offset + data.length > buffer.bytes:
        raise BadArgument(
            f"bytes {data.offset}..{data.offset + data.length} lie outside the buffer of {buffer.bytes} bytes",
            name="data.length",
            got=str(data.length),
            want=f"at most {buffer.bytes - data.offset}",
        )


def _folder(path: str) -> Entry:
    return Entry(path=path, kind="folder")


def _outside(inner_path: str, inner: str, path: str) -> str:
    """A path of a file system under the path that the program uses."""
    return (path.rstrip("/") + inner_path.removeprefix(inner.rstrip("/"))).removesuffix("/") or "/"


def _outer(entry: Entry, inner: str, path: str) -> Entry:
    return msgspec.structs.replace(entry, path=_outside(entry.path, inner, path))
