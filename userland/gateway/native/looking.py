"""Reads of the kernel what the picture of the system is made of."""

from __future__ import annotations

import time

import msgspec

from llmos.syscalls.types import Kind, LedgerRow
from llmos.userland.async_objects import AsyncSystem

from ..core.caller import Caller
from . import confine
from .asking import objects
from .overview import Look


async def look(caller: Caller, system: AsyncSystem) -> Look:
    """What a caller sees now."""
    rows = msgspec.json.decode(await system.read("/sys/memory"), type=list[LedgerRow])
    return Look(
        at=time.time(),
        system=confine.shown(caller, await system.stat()),
        devices=await objects(caller, system, Kind.DEVICE),
        drivers=await objects(caller, system, Kind.DRIVER),
        models=await objects(caller, system, Kind.MODEL),
        tasks=await objects(caller, system, Kind.TASK),
        rows=rows,
        metrics=await system.metrics("llmos_"),
    )
