"""The models of a run that goes on after the kernel was started again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..locating import locate_at, release
from ..objects import ModelObject
from .runs import Base

if TYPE_CHECKING:
    from ..core import Kernel


async def recall(kernel: Kernel, owner: str, base: Base, beside: ModelObject | None = None) -> ModelObject:
    """A model of a run, an adapter with what it stands `beside`: the one that is loaded, or a cold one that is loaded
    when it is asked for.

    Raises:
        NotFound: the driver, or that version of the model, is not there any more; and what locating raises.
    """
    place = base.place
    driver = kernel.supervisor.get(base.device)
    files, located = await locate_at(
        kernel, place.filesystem, place.source, place.inner, place.path, base.version
    )
    known = kernel.models.same(driver, located, base.options, beside)
    if known is not None:
        release(files, located)
        return known
    return kernel.models.create(owner, driver, files, located, base.options, beside, base.name, place.path)
