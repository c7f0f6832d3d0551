"""Memory that programs hold themselves: leases of device bytes, shared buffers."""

from __future__ import annotations

from llmos.syscalls import calls
from llmos.syscalls.errors import LlmosError, OverQuota
from llmos.syscalls.types import ALL_RIGHTS, Buffer, Kind, Lease

from ..ledger import size_text
from ..objects import RESERVATION, DeviceObject, LeaseObject
from ..requests import Request
from .registry import implements


@implements(calls.AllocGpu)
async def alloc_gpu(request: Request, call: calls.AllocGpu) -> Lease:
    kernel, session = request.kernel, request.session
    device = kernel.object_of(request.entries["device"])
    assert isinstance(device, DeviceObject)
    await kernel.supervisor.wait_ready(device.driver)
    limit = session.limits.lease_bytes
    if limit and session.lease_bytes + call.bytes > limit:
        raise OverQuota(
            f"alloc_gpu: this session may lease {limit} bytes and holds {session.lease_bytes}",
            what="lease_bytes",
            limit=limit,
        )
    kernel.quotas.check_bytes(session.owner, call.bytes, "alloc_gpu", session.limits.device_bytes)
    lease_id = kernel.new_id("l")
    session.lease_bytes += call.bytes
    given, file = None, None
    try:
        await _room(request, device, lease_id, call.bytes)
        kernel.holdings.coming[lease_id] = (session.owner, call.bytes)
        if call.share:
            given, file = await kernel.holdings.share_lease(device.driver, lease_id, call.bytes, session.peer.uid)
    except LlmosError:
        session.lease_bytes -= call.bytes
        kernel.ledger.release(lease_id)
        raise
    finally:
        kernel.holdings.coming.pop(lease_id, None)
    expires = None
    if call.ttl_s is not None:
        expires = kernel.wall() + call.ttl_s
        kernel.ledger.expire_at(lease_id, kernel.runner.clock() + int(call.ttl_s * 1e9))
    found = LeaseObject(
        id=lease_id,
        kind=Kind.LEASE,
        name=lease_id,
        owner=session.owner,
        device=device.name,
        bytes=call.bytes,
        session=session,
        expires=expires,
        given=given,
        file=file,
    )
    handle = kernel.add_object(found, session, ALL_RIGHTS)
    kernel.holdings.watch_leases()
    return Lease(
        handle=handle, id=lease_id, device=device.name, bytes=call.bytes, expires=expires, share=call.share,
        kind=RESERVATION if given is None else given.kind, mapping=given.path or given.handle.hex() if given else "",
    )  # fmt: skip


async def _room(request: Request, device: DeviceObject, lease: str, bytes: int) -> None:
    """Have the bytes of a lease promised; who sleeps for it does so to the end, even if the request ends meanwhile."""
    kernel, session = request.kernel, request.session
    name = f"a lease of {size_text(bytes)} for {session.program!r}"
    making = kernel.runner.detached(kernel.rooms.lease(device.driver, lease, name, bytes))
    admitted = await kernel.runner.kept(making, lambda _: kernel.ledger.release(lease))
    kernel.quotas.check_bytes(session.owner, bytes, "alloc_gpu", session.limits.device_bytes)  # others came meanwhile
    request.decided(admitted, (lease, device.name), "info")


@implements(calls.AllocBuffer)
def alloc_buffer(request: Request, call: calls.AllocBuffer) -> Buffer:
    kernel, session = request.kernel, request.session
    found = kernel.holdings.make_buffer(session, call.bytes)
    handle = kernel.add_object(found, session, ALL_RIGHTS)
    return Buffer(handle=handle, id=found.id, name=found.name, path=str(found.file.path), bytes=call.bytes)
