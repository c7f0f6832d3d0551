"""What the kernel does when drivers come, go, and report: their devices' bytes, figures and time, and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmos.syscalls.events import (
    CACHE_USAGE, HostEvent, Memory, MetricEvent, Overrun, Spent, TuneEnded, TuneProgress,
)  # fmt: skip
from llmos.syscalls.types import Reason

from . import returning
from .ledger import size_text
from .memory import rows
from .objects import DeviceObject, EventKind
from .recipes import what
from .supervisor import Driver, DriverState, Observer

if TYPE_CHECKING:
    from .core import Kernel


class DriverObserver(Observer):
    """The kernel's side of the supervisor."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def driver_changed(self, driver: Driver, reasons: Sequence[Reason]) -> None:
        self._kernel.instruments.restarts.labels(driver.name).set(driver.policy.restarts)
        kind: EventKind = "device" if driver.is_device else "driver"
        self._kernel.emit(kind, driver.name, state=driver.state.value, reason=reasons[0].text if reasons else "")

    def driver_ready(self, driver: Driver) -> None:
        if driver.facts is not None:
            facts = driver.facts
            device = self._kernel.objects[f"device:{driver.name}"]
            assert isinstance(device, DeviceObject)
            rows.size_device(self._kernel.ledger, device, facts)
            self._kernel.ledger.set_foreign(driver.name, facts.foreign_bytes)
            self._kernel.memory.ready(driver)
            returning.back(self._kernel, driver)

    def driver_lost(self, driver: Driver, cause: str) -> None:
        if driver.is_device:
            returning.lost(self._kernel, driver, cause)
            self._kernel.holdings.device_lost(driver)
            self._kernel.ledger.release_device(driver.name)
            rows.gone(self._kernel, driver)
            self._kernel.tunes.device_lost(driver, cause)
            if driver.state in (DriverState.FAILED, DriverState.STOPPED):
                returning.gone(self._kernel, driver, self._kernel.supervisor.failure(driver))

    def driver_event(self, driver: Driver, event: HostEvent) -> None:
        if isinstance(event, Memory):
            rows.take(self._kernel, driver, event.rows)
            self._kernel.ledger.set_foreign(driver.name, event.foreign_bytes)
        elif isinstance(event, TuneProgress | TuneEnded):
            self._kernel.tunes.told(event)
        elif isinstance(event, MetricEvent):
            self._take_figures(driver, event)
        elif isinstance(event, Overrun):
            self._overran(driver, event)
        elif isinstance(event, Spent):
            spent = self._kernel.instruments.spent_ns.labels(driver.name, event.work_class, event.tenant)
            spent.inc(event.device_ns)
            self._kernel.scheduler.spent(event.request, event.device_ns)
            self._kernel.quotas.spent(event)

    def _overran(self, driver: Driver, event: Overrun) -> None:
        """A plan was too small: the next one is larger."""
        kernel = self._kernel
        for model in kernel.models.by_id.values():
            if model.host_id != event.model:
                continue
            kernel.instruments.out_of_memory.labels(driver.name, model.name).inc()
            recipe = what(driver.name, model.located, model.options)
            more = kernel.models.corrections.learn(recipe, event.what, event.predicted, event.measured)
            text = (
                f"{model.name} ran out of memory on {driver.name}: {event.what} took {size_text(event.measured)}, "
                f"planned were {size_text(event.predicted)}; its next load is planned {size_text(more)} larger"
            )
            overrun = kernel.reason(
                "memory.overrun", text, predicted=event.predicted, measured=event.measured, extra=more
            )
            about = [model.id, driver.name, *([event.request] if event.request else [])]
            kernel.decide(about, overrun, "warning")

    def _take_figures(self, driver: Driver, event: MetricEvent) -> None:
        for name, value in event.values.items():
            if name == CACHE_USAGE:
                for model in self._kernel.models.by_id.values():
                    if model.host_id == event.about:
                        self._kernel.instruments.kv_usage.labels(model.name).set(value)
            else:
                self._kernel.instruments.driver_values.labels(driver.name, event.about, name).set(value)
