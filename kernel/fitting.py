"""Searching for models that fit on a device: the planner of `load_model` decides, where the bytes alone do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from llmos.syscalls.errors import BadArgument, LlmosError
from llmos.syscalls.types import Hit, Kind, LoadOptions

from .ledger import size_text
from .locating import locate, release
from .objects import DeviceObject
from .supervisor import Driver

if TYPE_CHECKING:
    from .core import Kernel
    from .requests import Request
    from .session import Session

ANY = "any"
"""Fits on any device of the session."""
MORE = 4
"""How many hits are asked for each that is wanted, because some will not fit."""
MOST = 1000
SURE = 4
"""A model with room for so many times its files fits without a plan: with float32 weights of bfloat16 files, the cache
and the work memory."""
PLANS = 16
"""Plans of one search; what comes after that is judged by its files alone."""


async def search(request: Request, path: str, query: str, filters: dict[str, Any], limit: int) -> list[Hit]:
    """Hits below a path; with the filter `fits`, those models that can be loaded on that device now.

    Raises:
        BadArgument: the session has no device of that name.
        BadState, DriverFailed: it is not running.
        Further what the file system raises.
    """
    kernel, session = request.kernel, request.session
    wanted = filters.pop("fits", None)
    if wanted is None:
        return await kernel.files.search(session, path, query, filters, limit)
    devices = await _devices(kernel, session, wanted)
    hits = await kernel.files.search(session, path, query, filters, min(MOST, MORE * limit))
    found: list[Hit] = []
    plans = PLANS
    for hit in hits:
        for driver in devices:
            if len(found) == limit:
                return found
            planned, why = await _fits(request, driver, hit, plans > 0)
            plans -= planned
            if why:
                found.append(replace(hit, reason="; ".join(filter(None, (hit.reason, why)))))
                break
    return found


async def _devices(kernel: Kernel, session: Session, wanted: Any) -> Sequence[Driver]:
    """The devices that are meant; one that is starting is waited for, and of `any` those that are down are left out."""
    mine = [
        found.driver
        for entry in kernel.handles.of_session(session.id)
        if entry.kind is Kind.DEVICE
        for found in [kernel.objects[entry.object]]
        if isinstance(found, DeviceObject)
    ]
    chosen = [driver for driver in mine if wanted in (ANY, driver.name)]
    if wanted != ANY and not chosen:
        names = ", ".join([ANY, *(driver.name for driver in mine)])
        raise BadArgument(f"fits: there is no device {wanted!r}", name="fits", got=str(wanted)[:80], want=names)
    ready = []
    for driver in chosen:
        try:
            await kernel.supervisor.wait_ready(driver)
        except LlmosError:
            if wanted != ANY:
                raise
        else:
            ready.append(driver)
    return ready


async def _fits(request: Request, driver: Driver, hit: Hit, may_plan: bool) -> tuple[bool, str]:
    """Whether a plan was made, and why the model fits; nothing when it does not."""
    kernel = request.kernel
    size = hit.fields.get("bytes")
    if not isinstance(size, int):
        return False, ""
    free, movable = kernel.ledger.free(driver.name), _movable(kernel, driver)
    numbers = f"{size_text(free)} free" + (f" and {size_text(movable)} that idle models would give" if movable else "")
    if size * SURE <= free or not may_plan:
        estimate = size if size * SURE <= free else 2 * size
        if estimate > free + movable:
            return False, ""
        return False, f"fits on {driver.name}: its files are {size_text(size)}, {numbers}"
    if size > free + movable:
        return False, ""
    try:
        needed = await _needed(request, driver, hit.path)
    except LlmosError:
        return True, ""  # what cannot be planned cannot be loaded
    if needed > free + movable:
        return True, ""
    return True, f"fits on {driver.name}: needs {size_text(needed)}, {numbers}"


def _movable(kernel: Kernel, driver: Driver) -> int:
    for model in kernel.models.by_id.values():
        kernel.ledger.set_evictable(model.host_id, kernel.residency.evictable(model.id))
    return kernel.ledger.evictable(driver.name)


async def _needed(request: Request, driver: Driver, path: str) -> int:
    kernel = request.kernel
    files, located = await locate(kernel, request.session, path)
    try:
        return (await kernel.models.plan(driver, located, LoadOptions(), "planned")).needed
    finally:
        release(files, located)
