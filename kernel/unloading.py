"""Taking models off their devices: at once, by force, or when what they have to do is done."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from llmos.syscalls.driver import HostUnload
from llmos.syscalls.errors import Busy, Cancelled, LlmosError, NotFound, PeerGone

from .ledger import count_text
from .recipes import names_of
from .residency import State
from .supervisor import UP

if TYPE_CHECKING:
    from .core import Kernel
    from .objects import ModelObject


async def unload(kernel: Kernel, model: ModelObject, *, force: bool, drain: bool = False) -> int:
    """Take a model off its device, its adapters first; returns the bytes freed.

    Raises:
        Busy: requests run or wait, or adapters depend on it, and neither `force` nor `drain` is set; or it is on its
            way somewhere, which with `drain` is waited for.
    """
    if not drain:
        _check(kernel, model, force)
    while adapters := kernel.models.adapters_of(model):  # one more may come while another one leaves
        await unload(kernel, adapters[0], force=force, drain=drain)
    if drain:
        await _drained(kernel, model)
    if model.id not in kernel.models.by_id:
        return 0  # somebody else has unloaded it meanwhile
    _check_still(model)
    here = kernel.residency.state(model.id) is not State.COLD
    kernel.models.forget(model, Cancelled(f"{model.name} is unloaded"))
    kernel.tunes.model_gone(model)
    freed = kernel.ledger.release(model.host_id)
    kernel.rooms.look(model.driver.name)
    if here and model.driver.link is not None and model.driver.state in UP and model.loaded is not None:
        # A driver that came back does not have what could not be loaded again; one that ends now has nothing any more.
        with suppress(NotFound, PeerGone):
            freed = max(freed, (await model.driver.link.call(HostUnload(id=model.host_id))).bytes)
    kernel.log("model", f"{model.name} is unloaded, {freed} bytes freed", model.id)
    return freed


def _check(kernel: Kernel, model: ModelObject, force: bool) -> None:
    _check_still(model)
    adapters = kernel.models.adapters_of(model)
    active = len(kernel.scheduler.running(model.id)) + len(kernel.scheduler.waiting(model.id))
    if not force and (tuned := kernel.tunes.on(model)):
        raise Busy(f"{model.name} is busy: {', '.join(tuned)} works with it; wait, cancel that, or use force")
    if (active or adapters) and not force:
        on_it = f"adapters are loaded on it: {names_of(adapters)}"
        what = f"it has {count_text(active, 'request')} to answer" if active else on_it
        hint = "wait, or use force" if active else "unload them first, or use force"
        raise Busy(f"{model.name} is busy: {what}; {hint}", retry_after_ms=1000 if active else 0)


def _check_still(model: ModelObject) -> None:
    if model.loading is not None:
        raise Busy(f"{model.name} is {model.status}; try again when that is done", retry_after_ms=1000)


async def _drained(kernel: Kernel, model: ModelObject) -> None:
    """Wait until nothing runs or waits on a model, and nothing brings it anywhere."""
    while True:
        if model.loading is not None:
            with suppress(LlmosError):  # a load or sleep that fails leaves the model as it was
                await model.loading
        elif kernel.scheduler.running(model.id) or kernel.scheduler.waiting(model.id) or kernel.tunes.on(model):
            if model.idle is None or model.idle.done:
                model.idle = kernel.runner.future()
            await model.idle
        else:
            return
