"""The model of a run that goes on after the kernel was started again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..locating import locate_at, release
from ..objects import ModelObject
from .runs import Run

if TYPE_CHECKING:
    from ..core import Kernel


async def recall(kernel: Kernel, run: Run) -> ModelObject:
    """The model that a run tunes: the one that is loaded, or a cold one that is loaded when it is asked for.

    Raises:
        NotFound: the driver, or that version of the model, is not there any more; and what locating raises.
    """
    base, place = run.base, run.base.place
    driver = kernel.supervisor.get(base.device)
    files, located = await locate_at(
        kernel, place.filesystem, place.source, place.inner, place.path, base.version
    )
    known = kernel.models.same(driver, located, base.options, None)
    if known is not None:
        release(files, located)
        return known
    return kernel.models.create(run.owner, driver, files, located, base.options, None, base.name, place.path)
