"""Memory that programs hold themselves."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..errors import BadState, DriverFailed, NoDeviceMemory, NoResources, NotSupported, Unavailable
from ..spec import Call
from ..types import Buffer, Handle, Kind, Lease, Right


class AllocGpu(
    Call[Lease], name="alloc_gpu", errors=(NoDeviceMemory, NotSupported, Unavailable, DriverFailed, BadState)
):
    """Reserve bytes of a device: the ledger gives them to nobody else until the lease ends."""

    device: Annotated[Handle, Kind.DEVICE, Right.CREATE, "the device; cpu devices lease host memory"]
    bytes: Annotated[int, Meta(ge=1), "how many"]
    ttl_s: Annotated[Annotated[float, Meta(gt=0, le=1e9)] | None, "seconds until it expires by itself"] = None
    share: Annotated[bool, "make it mappable by another process (devices that can)"] = False


class AllocBuffer(Call[Buffer], name="alloc_buffer", errors=(NoResources,)):
    """Make a shared-memory buffer for large inputs and results. Closing its last handle frees it."""

    system: Annotated[Handle, Kind.SYSTEM, Right.CREATE, "the system"]
    bytes: Annotated[int, Meta(ge=1), "size"]
