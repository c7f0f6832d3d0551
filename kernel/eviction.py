"""Room on a device: admit a model's bytes, putting idle models to sleep when it takes that; and when it is time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from llmos.syscalls.errors import LlmosError, NoDeviceMemory, NotSupported
from llmos.syscalls.types import Reason

from .ledger import size_text

if TYPE_CHECKING:
    from .core import Kernel
    from .objects import ModelObject


async def make_room(kernel: Kernel, model: ModelObject, owner: str, sizes: Mapping[str, int]) -> Reason:
    """Promise `owner`, weights of the model, exactly these bytes (by use); what must sleep for it is told why.

    Raises:
        NoDeviceMemory: not even all idle models together hold enough, or one of them cannot sleep.
    """
    device = model.driver.name
    for each in kernel.models.by_id.values():
        kernel.ledger.set_evictable(each.host_id, kernel.residency.evictable(each.id))
    try:
        return kernel.stamp(kernel.ledger.resize(device, owner, sizes))
    except NoDeviceMemory as error:
        refusal = error
        if sizes.get("kv"):
            refusal.text += f"; a smaller max_context would need fewer than these {size_text(sizes['kv'])} of kv"
    victims = kernel.residency.victims(device, refusal.needed - refusal.free, kernel.runner.clock())
    if not victims:
        raise refusal
    for victim in victims:
        idle = kernel.models.by_id.get(victim.model)
        if idle is None:
            continue  # it was unloaded while another one was put to sleep
        reason = replace(victim.reason, text=f"it makes room for {model.name}: {victim.reason.text}", at=kernel.wall())
        try:
            await kernel.models.sleep(idle, reason)
        except LlmosError:
            raise refusal from None
    return kernel.stamp(kernel.ledger.resize(device, owner, sizes))


def put_idle_to_sleep(kernel: Kernel, now: int) -> None:
    """Put to sleep what nobody has used for its keep-alive time."""
    for action in kernel.residency.tick(now):
        model = kernel.models.by_id[action.model]
        kernel.runner.spawn(kernel.models.sleep(model, kernel.stamp(action.reason)), partial(_slept, kernel, model))


def _slept(kernel: Kernel, model: ModelObject, _value: Any, error: LlmosError | None) -> None:
    if isinstance(error, NotSupported) and model.id in kernel.models.by_id:
        kernel.residency.keep_alive(model.id, -1, kernel.runner.clock())
        kernel.log("model", f"{model.name} stays awake: {error}", model.id, level="warning")
