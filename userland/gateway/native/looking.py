"""Reads of the kernel what the picture of the system is made of."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

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
    models = await objects(caller, system, Kind.MODEL)
    names = {name for model in models for name in (model.id, model.name)}
    return Look(
        at=time.time(),
        system=confine.shown(caller, await system.stat()),
        devices=await objects(caller, system, Kind.DEVICE),
        drivers=await objects(caller, system, Kind.DRIVER),
        models=models,
        tasks=await objects(caller, system, Kind.TASK),
        rows=rows,
        metrics=await system.metrics("llmos_"),
        raised=[each for each in await system.alerts() if caller.admin or each.about in names],
        advice=[each for each in await system.advice() if caller.admin or each.about in names],
        queues=_queues(caller, msgspec.json.decode(await system.read("/sys/queues")), names),
    )


def _queues(caller: Caller, queues: Sequence[Mapping[str, Any]], names: Collection[str]) -> list[dict[str, Any]]:
    """The queues of the models that a caller sees; who waits in them only an administrator is told."""
    return [
        dict(queue) if caller.admin else {**queue, "owner": ""} for queue in queues if queue["model"] in names
    ]
