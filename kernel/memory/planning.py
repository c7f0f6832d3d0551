"""Whether a model would fit on a device, what would have to go for it, and what is missing even then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmos.syscalls.driver import Located
from llmos.syscalls.types import Eviction, LoadOptions, Plan, Reason

from ..ledger import count_text, size_text
from ..recipes import predicted
from ..residency import Sleep

if TYPE_CHECKING:
    from ..core import Kernel
    from ..objects import ModelObject
    from ..supervisor import Driver


async def dry_run(
    kernel: Kernel, driver: Driver, path: str, located: Located, options: LoadOptions, base: ModelObject | None
) -> Plan:
    """What a load of `path` would do now; nothing is promised.

    Raises:
        What the driver raises for a model that it cannot plan.
    """
    plan = await kernel.models.plan(driver, located, options, "planned")
    missing, keep = plan.needed - plan.free, () if base is None else (base.id,)
    kernel.rooms.say_who_may_leave()
    now, busy = kernel.runner.clock(), 0
    victims = kernel.residency.victims(driver.name, missing, now, keep) if missing > 0 else []
    if not victims and missing > 0:
        victims = kernel.residency.victims(driver.name, missing, now, keep, busy=True)
        busy = sum(len(kernel.scheduler.running(each.model)) for each in victims)
    names = {each.model: kernel.models.by_id[each.model].name for each in victims}
    by_whom = kernel.ledger.refusal(driver.name, plan.needed).by_whom
    for model in kernel.models.by_id.values():
        by_whom = by_whom.replace(model.host_id, model.name)
    short = max(0, missing - kernel.residency.movable(driver.name, keep))
    plan = judge(replace(plan, short=short), driver.name, path, victims, names, busy, by_whom)
    return replace(plan, reasons=[kernel.stamp(reason) for reason in plan.reasons])


def judge(
    plan: Plan, device: str, path: str, victims: Sequence[Sleep], names: Mapping[str, str], busy: int, by_whom: str
) -> Plan:
    """The plan with its verdict. Pure.

    Args:
        victims: what would have to sleep for it, by the policy; none when there is room, or when all is too little.
        names: of the victims' models.
        busy: requests that run on them.
        by_whom: who holds the bytes of the device.
    """
    numbers: dict[str, float | int | str] = {"needed": plan.needed, "free": plan.free}
    have = f"{path} needs {size_text(plan.needed)} of {device}, {size_text(plan.free)} are free"
    evictions = [
        Eviction(
            model=names[each.model], bytes=each.bytes, reload_s=each.reload_s, idle_s=each.idle_s, reason=each.reason
        )
        for each in victims
    ]
    if plan.needed <= plan.free:
        return replace(plan, fits=True, reasons=[*plan.reasons, Reason(code="plan.fits", text=have, numbers=numbers)])
    if victims:
        frees = sum(each.bytes for each in victims)
        gone = ", ".join(f"{each.model} ({size_text(each.bytes)})" for each in evictions)
        wait = f" when what runs on them has ended ({count_text(busy, 'request')})" if busy else ""
        reason = Reason(
            code="plan.evicts", text=f"{have}; {gone} would be put to sleep{wait}",
            numbers={**numbers, "frees": frees, "busy": busy}, rule=victims[0].reason.rule,
        )  # fmt: skip
        would = [each.model for each in evictions]
        return replace(plan, fits=True, would_evict=would, evictions=evictions, reasons=[*plan.reasons, reason])
    reason = Reason(
        code="plan.short", text=f"{have}; {size_text(plan.short)} are missing whatever sleeps (held by {by_whom})",
        numbers={**numbers, "short": plan.short}, change=_smaller(plan),
    )  # fmt: skip
    return replace(plan, fits=False, reasons=[*plan.reasons, reason])


def _smaller(plan: Plan) -> str:
    """What would make the model take less, with what it could save at most."""
    sizes = predicted(plan.rows)
    ways = []
    if weights := sizes.get("weights"):
        ways.append(f"--quant w8 or w4 (the weights are {size_text(weights)})")
    if kv := sizes.get("kv"):
        ways.append(f"a smaller --max-context (keys and values are {size_text(kv)})")
    return ", ".join([*ways, "unpin or unload what holds the bytes, or another device"])
