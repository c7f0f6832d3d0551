"""What sessions hold beside handles: shared buffers, leases of device bytes, conversations."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from llmos.syscalls.driver import HostDropContext, HostEndLease, HostLease, LeaseGiven
from llmos.syscalls.errors import LlmosError, NoDeviceMemory, NoResources, OverQuota
from llmos.syscalls.types import Kind

from .buffers import BufferFile
from .ledger import HOST
from .objects import BufferObject, ContextObject, LeaseObject, ModelObject
from .pending import Timer
from .session import Session
from .supervisor import Driver

if TYPE_CHECKING:
    from .core import Kernel


SHM = "shm"
BUFFER = "buffer"
"""What shared buffers are called in the ledger; their owner is the session."""


class Holdings:
    """Makes and ends them; the handles to them are the caller's matter."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._timer: Timer | None = None
        self.coming: dict[str, tuple[str, int]] = {}
        """Leases that have their room and are being shared: whose, and how many bytes."""

    def make_buffer(self, session: Session, size: int) -> BufferObject:
        """A shared buffer for a session; `add_object` gives it the handle. Raises NoResources, OverQuota."""
        limit = session.limits.buffer_bytes
        if limit and session.buffer_bytes + size > limit:
            raise OverQuota(
                f"this session may hold {limit} bytes of buffers and holds {session.buffer_bytes}",
                what="buffer_bytes",
                limit=limit,
            )
        total = self._kernel.config.limits.buffer_bytes
        if total and self._kernel.buffers.promised + size > total:
            raise NoResources(f"all buffers together may hold {total} bytes", what="buffer_bytes", limit=total)
        file = self._kernel.buffers.take(size, session.id, session.peer.uid)
        try:
            self._count_buffers(session)
        except NoDeviceMemory as error:
            self._kernel.buffers.discard(file, session.id)
            raise NoResources(f"no buffer of {size} bytes: {error}", what="buffer bytes", limit=error.free) from error
        session.buffer_bytes += file.size
        name = file.path.name
        return BufferObject(
            id=self._kernel.new_id("b"),
            kind=Kind.BUFFER,
            name=name,
            owner=session.owner,
            file=file,
            bytes=size,
            session=session,
        )

    def drop_buffer(self, found: BufferObject) -> None:
        found.session.buffer_bytes -= found.file.size
        self._kernel.buffers.give(found.file, found.session.id)
        if found.session.id not in self._kernel.sessions.by_id:
            self._kernel.buffers.forget(found.session.id)
        self._count_buffers(found.session)
        self._kernel.remove_object(found)

    def _count_buffers(self, session: Session) -> None:
        """Buffers take of the machine's memory, those too that are kept for the next. Raises NoDeviceMemory."""
        held = self._kernel.buffers.held(session.id)
        self._kernel.ledger.resize(HOST, session.id, {BUFFER: held} if held else {})

    def forget_buffers(self, session: Session) -> None:
        """The session has ended: nothing is kept for it any more."""
        self._kernel.buffers.forget(session.id)
        self._count_buffers(session)

    async def share_lease(
        self, driver: Driver, lease: str, bytes: int, uid: int
    ) -> tuple[LeaseGiven, BufferFile | None]:
        """Bytes that the ledger has promised, so that another program can map them; the file, where it is one. Raises
        what the driver raises."""
        buffers = self._kernel.buffers
        assert driver.link is not None
        path = buffers.lease_path(lease, uid)
        try:
            given = await driver.link.call(HostLease(id=lease, bytes=bytes, share=True, path=str(path)))
        except LlmosError:
            path.unlink(missing_ok=True)
            self._say_ended(driver, lease)
            raise
        return given, buffers.adopt(path, bytes, uid) if given.path == str(path) else None

    def _say_ended(self, driver: Driver, lease: str) -> None:
        if driver.link is not None:
            driver.link.call(HostEndLease(id=lease))

    def end_lease(self, found: LeaseObject, why: str) -> None:
        """Give the bytes of a lease back; its handles are closed."""
        found.session.lease_bytes -= found.bytes
        self._kernel.ledger.release(found.id)
        if found.given is not None:
            self._say_ended(self._kernel.supervisor.drivers[found.device], found.id)
        if found.file is not None:
            self._kernel.buffers.end(found.file)
        self._kernel.remove_object(found)
        self._kernel.log("lease", f"{found.id} ({found.bytes} bytes of {found.device}) has ended: {why}", found.id)
        self._kernel.emit("lease", found.id, state="ended", reason=why)

    def device_lost(self, driver: Driver) -> None:
        """Its memory is gone, and with it what others have mapped of it; reservations and files stay."""
        for found in list(self._kernel.objects.values()):
            if isinstance(found, LeaseObject) and found.device == driver.name and found.given and not found.file:
                self.end_lease(found, f"driver {driver.name} has ended")

    def watch_leases(self) -> None:
        """End leases when their time has come: one timer, for the next of them."""
        if self._timer is not None:
            self._timer.cancel()
        due = self._kernel.ledger.next_expiry()
        self._timer = None if due is None else self._kernel.runner.at(due, self._expire)

    def _expire(self) -> None:
        for owner in self._kernel.ledger.expire(self._kernel.runner.clock()):
            found = self._kernel.objects[owner]
            assert isinstance(found, LeaseObject)
            self.end_lease(found, "its time to live has passed")
        self.watch_leases()

    def drop_context(self, found: ContextObject) -> None:
        """End a conversation and free its state."""
        if found.status == "open" and found.model.driver.link is not None:
            found.model.driver.link.call(HostDropContext(id=found.id))
        found.status = "dropped"
        self._kernel.remove_object(found)

    def contexts_lost(self, model: ModelObject, why: str, but: Collection[str] = ()) -> None:
        """Conversations whose state is gone keep their handles and say so at the next use; those in `but` go on."""
        for found in self._kernel.objects.values():
            if not isinstance(found, ContextObject) or found.id in but:
                continue
            if found.model is model and found.status == "open":
                found.status = "lost"
                self._kernel.log("context", f"{found.id} is lost: {why}", found.id)
