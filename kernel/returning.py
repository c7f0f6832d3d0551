"""What becomes of models when their driver ends, is given up, or is back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.syscalls.errors import LlmosError

from .residency import Event, State
from .supervisor import Driver

if TYPE_CHECKING:
    from .core import Kernel
    from .objects import ModelObject


def lost(kernel: Kernel, driver: Driver, cause: str) -> None:
    """Its models are lost until the driver is back; requests that wait keep waiting. What slept is cold."""
    kernel.swaps.device_lost(driver)
    kernel.rooms.device_lost(driver, cause)
    for model in list(kernel.models.by_id.values()):
        if model.driver is not driver:
            continue
        ended, state = f"driver {driver.name} ended: {cause}", kernel.residency.state(model.id)
        if state is State.COLD:
            continue  # it has nothing there to lose
        if state in (State.SLEEPING, State.ASLEEP) and not _wanted(kernel, model, state):
            _go_cold(kernel, model, ended)
            continue
        if state is not State.FAILED:
            model.why = [kernel.reason("driver.lost", ended)]
            level = "info" if kernel.draining else "warning"
            kernel.log("model", f"{model.name} is lost: {ended}", model.id, model.why, level)
        kernel.holdings.contexts_lost(model, ended)
        slots = model.loaded.slots if model.loaded else 1
        if model.loading is None:
            kernel.scheduler.set_lane(model.id, slots, open=False, device=driver.name)
        if state in (State.AWAKE, State.ASLEEP, State.SLEEPING):
            kernel.models.event(model, Event.LOST)


def _wanted(kernel: Kernel, model: ModelObject, state: State) -> bool:
    """Whether a model that is not awake was on its way back, or somebody waits for it."""
    coming = state is State.ASLEEP and model.loading is not None
    return coming or bool(kernel.scheduler.waiting(model.id))


def _go_cold(kernel: Kernel, model: ModelObject, ended: str) -> None:
    """It slept when its driver ended: it keeps its name and handles, and is loaded when somebody asks for it."""
    model.why = [kernel.reason("model.cold", f"{ended} while it slept; the next request loads it from its files")]
    kernel.log("model", f"{model.name} is cold: {model.why[0].text}", model.id, model.why)
    kernel.holdings.contexts_lost(model, ended)
    kernel.models.event(model, Event.GONE)


def gone(kernel: Kernel, driver: Driver, error: LlmosError) -> None:
    """The driver will not come back: requests that wait for its models end."""
    for model in kernel.models.by_id.values():
        if model.driver is driver:
            for ticket in kernel.scheduler.waiting(model.id):
                kernel.interrupt(kernel.requests[ticket.id], error)


def back(kernel: Kernel, driver: Driver) -> None:
    """Load again what was lost, bases before their adapters; what finds no room is cold until somebody asks for it, as
    somebody may have done while it left memory."""
    here = [m for m in kernel.models.by_id.values() if m.driver is driver and m.loading is None]
    for model in sorted(here, key=lambda m: m.base is not None):
        state = kernel.residency.state(model.id)
        if state is State.LOST or (state is State.COLD and kernel.scheduler.waiting(model.id)):
            kernel.runner.spawn(_reload(kernel, model), lambda _value, _error: None)


async def _reload(kernel: Kernel, model: ModelObject) -> None:
    await kernel.models.wake(model)
