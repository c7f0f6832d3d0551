"""Rows that drivers report, each taken to the device that it is of: the driver's own, or the machine's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmos.syscalls.events import DeviceFacts
from llmos.syscalls.types import LedgerRow

from ..ledger import HOST, Ledger
from ..recipes import held, predicted, what

if TYPE_CHECKING:
    from ..core import Kernel
    from ..objects import DeviceObject, ModelObject
    from ..supervisor import Driver


def size_device(ledger: Ledger, device: DeviceObject, facts: DeviceFacts) -> None:
    """A device has so much memory, of which no more than its limit is given. What a limit keeps from it is a reserve;
    of a pool it only stays with the others."""
    limit = min(device.limit or facts.memory_bytes, facts.memory_bytes)
    if facts.pool:
        ledger.set_device(device.name, limit, pool=facts.pool)
    else:
        ledger.set_device(device.name, facts.memory_bytes, facts.memory_bytes - limit)


def take(kernel: Kernel, driver: Driver, rows: Sequence[LedgerRow]) -> None:
    """All that a driver holds now, as it measured it."""
    own, host = _parted(rows)
    kernel.ledger.reconcile(driver.name, own)
    models = {model.host_id for model in kernel.models.by_id.values() if model.driver is driver}
    owners = models | {driver.name} | kernel.tunes.tasks_on(driver)
    kernel.ledger.reconcile(HOST, host, owners)


def settle(kernel: Kernel, model: ModelObject, rows: Sequence[LedgerRow]) -> None:
    """A model went to sleep: what it holds from now on."""
    own, host = _parted(rows)
    kernel.ledger.resize(model.driver.name, model.host_id, held(own))
    _settle_host(kernel, model, host)


def awake(kernel: Kernel, model: ModelObject, rows: Sequence[LedgerRow]) -> None:
    """A model woke or was loaded: what it holds of the machine's memory, and what it takes of its device at most.

    That may be less than the plan, as of a model that is served without the pages that were planned for it. Rows that
    predict nothing say nothing of it.
    """
    own, host = _parted(rows)
    _settle_host(kernel, model, host)
    if any(row.predicted for row in own):
        taken = kernel.models.corrections.apply(what(model.driver.name, model.located, model.options), own)[0]
        kernel.ledger.lower(model.driver.name, model.host_id, predicted(taken))


def gone(kernel: Kernel, driver: Driver) -> None:
    """The driver's host has ended, and with it what its models held of the machine's memory."""
    take(kernel, driver, [])


def _settle_host(kernel: Kernel, model: ModelObject, rows: Sequence[LedgerRow]) -> None:
    mine = [
        LedgerRow(device=HOST, what=row.what, owner=model.host_id, allocator=row.allocator, driver=row.driver)
        for row in rows
    ]
    kernel.ledger.reconcile(HOST, mine, [model.host_id])


def _parted(rows: Sequence[LedgerRow]) -> tuple[list[LedgerRow], list[LedgerRow]]:
    return [row for row in rows if row.device != HOST], [row for row in rows if row.device == HOST]
