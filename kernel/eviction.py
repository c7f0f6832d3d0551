"""Room on a device: admit a model's bytes, putting idle models to sleep when that is what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmos.syscalls.errors import LlmosError, NoDeviceMemory
from llmos.syscalls.types import Reason

from .ledger import size_text

if TYPE_CHECKING:
    from .core import Kernel


async def make_room(kernel: Kernel, device: str, owner: str, sizes: Mapping[str, int]) -> Reason:
    """Promise `owner` exactly these bytes (by use) on the device; what must sleep for it is told why.

    Raises:
        NoDeviceMemory: not even all idle models together hold enough, or one of them cannot sleep.
    """
    for model in kernel.models.by_id.values():
        kernel.ledger.set_evictable(model.host_id, kernel.residency.evictable(model.id))
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
        idle, reason = kernel.models.by_id.get(victim.model), kernel.stamp(victim.reason)
        if idle is None:
            continue  # it was unloaded while another one was put to sleep
        kernel.log("model", reason.text, idle.id, [reason])
        try:
            await kernel.models.sleep(idle)
        except LlmosError:
            raise refusal from None
        idle.why = [reason]
    return kernel.stamp(kernel.ledger.resize(device, owner, sizes))
