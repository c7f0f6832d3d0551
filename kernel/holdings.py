"""What sessions hold beside handles: shared buffers, leases of device bytes, conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.syscalls.driver import HostDropContext
from llmos.syscalls.errors import NoResources, OverQuota
from llmos.syscalls.types import Kind

from .objects import BufferObject, ContextObject, LeaseObject, ModelObject
from .pending import Timer
from .session import Session

if TYPE_CHECKING:
    from .core import Kernel


class Holdings:
    """Makes and ends them; the handles to them are the caller's matter."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._timer: Timer | None = None

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
        self._kernel.remove_object(found)

    def end_lease(self, found: LeaseObject, why: str) -> None:
        """Give the bytes of a lease back; its handles are closed."""
        found.session.lease_bytes -= found.bytes
        self._kernel.ledger.release(found.id)
        self._kernel.remove_object(found)
        self._kernel.log("lease", f"{found.id} ({found.bytes} bytes of {found.device}) has ended: {why}", found.id)
        self._kernel.emit("lease", found.id, state="ended", reason=why)

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

    def contexts_lost(self, model: ModelObject, why: str) -> None:
        """Conversations whose state is gone keep their handles and say so at the next use."""
        for found in self._kernel.objects.values():
            if isinstance(found, ContextObject) and found.model is model and found.status == "open":
                found.status = "lost"
                self._kernel.log("context", f"{found.id} is lost: {why}", found.id)
