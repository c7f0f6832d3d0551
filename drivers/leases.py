"""The kernel's calls about bytes that other programs use, carried out on a `contract.Device`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmos.syscalls.driver import HostEndLease, HostLease, LeaseGiven
from llmos.syscalls.spec import Call
from llmos.syscalls.types import Freed

from . import contract


def handlers(device: contract.Device) -> Mapping[type[Call[Any]], Callable[[int, Any], Any]]:
    """What to do for each call."""

    def lease(_number: int, call: HostLease) -> LeaseGiven:
        if not call.share:
            return LeaseGiven(kind="reservation")
        given = device.lease(call.id, call.bytes, call.path)
        return LeaseGiven(kind=given.kind, handle=given.handle, path=given.path)

    def end(_number: int, call: HostEndLease) -> Freed:
        return Freed(bytes=device.end_lease(call.id))

    return {HostLease: lease, HostEndLease: end}
