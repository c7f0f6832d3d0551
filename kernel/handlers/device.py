"""Memory that programs hold themselves: leases of device bytes, shared buffers."""

from __future__ import annotations

from llmos.syscalls import calls
from llmos.syscalls.errors import NotSupported, OverQuota
from llmos.syscalls.types import ALL_RIGHTS, Buffer, Kind, Lease

from ..objects import DeviceObject, LeaseObject
from ..requests import Request
from .registry import implements


@implements(calls.AllocGpu)
async def alloc_gpu(request: Request, call: calls.AllocGpu) -> Lease:
    kernel, session = request.kernel, request.session
    device = kernel.object_of(request.entries["device"])
    assert isinstance(device, DeviceObject)
    if call.share:
        raise NotSupported(
            f"alloc_gpu: {device.name} cannot share an allocation with another process; ask with share=False",
            why="the driver has no shareable allocations",
        )
    await kernel.supervisor.wait_ready(device.driver)
    limit = session.limits.lease_bytes
    if limit and session.lease_bytes + call.bytes > limit:
        raise OverQuota(
            f"alloc_gpu: this session may lease {limit} bytes and holds {session.lease_bytes}",
            what="lease_bytes",
            limit=limit,
        )
    lease_id = kernel.new_id("l")
    ends = None if call.ttl_s is None else kernel.runner.clock() + int(call.ttl_s * 1e9)
    request.reasons.append(kernel.stamp(kernel.ledger.reserve(device.name, lease_id, "lease", call.bytes, ends)))
    expires = None if call.ttl_s is None else kernel.wall() + call.ttl_s
    found = LeaseObject(
        id=lease_id,
        kind=Kind.LEASE,
        name=lease_id,
        owner=session.owner,
        device=device.name,
        bytes=call.bytes,
        session=session,
        expires=expires,
    )
    session.lease_bytes += call.bytes
    handle = kernel.add_object(found, session, ALL_RIGHTS)
    kernel.holdings.watch_leases()
    return Lease(handle=handle, id=lease_id, device=device.name, bytes=call.bytes, expires=expires, share=call.share)


@implements(calls.AllocBuffer)
def alloc_buffer(request: Request, call: calls.AllocBuffer) -> Buffer:
    kernel, session = request.kernel, request.session
    found = kernel.holdings.make_buffer(session, call.bytes)
    handle = kernel.add_object(found, session, ALL_RIGHTS)
    return Buffer(handle=handle, id=found.id, name=found.name, path=str(found.file.path), bytes=call.bytes)
