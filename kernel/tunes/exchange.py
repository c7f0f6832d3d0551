"""What is loaded by the name of a result goes over to it: the new version is loaded beside the old one and takes its
name, requests under way finish on the old one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.syscalls.errors import LlmosError
from llmos.syscalls.types import Right

from ..following import CURRENT
from ..objects import ModelObject
from ..recipes import names_of
from ..requests import Request

if TYPE_CHECKING:
    from ..core import Kernel
    from .runs import Run


def followers(kernel: Kernel, run: Run) -> list[ModelObject]:
    """The models and adapters that were loaded as whatever is current where the result of a run is now."""
    place = run.out.filesystem, run.out.source, run.out.inner.partition("@")[0]
    return [
        model for model in kernel.models.by_id.values()
        if model.path.partition("@")[2] in CURRENT and model.version != run.version
        and (model.files.name, model.located.source, model.located.path.partition("@")[0]) == place
    ]  # fmt: skip


async def exchange(kernel: Kernel, asked: Request | None, run: Run) -> None:
    """Have them go over, as far as who had asked for the run may say so; what cannot go over serves what it did."""
    for model in followers(kernel, run):
        before, why = model.version, _refused(kernel, asked, run, model)
        if not why:
            try:
                await kernel.models.newer(model)
            except LlmosError as error:
                why = str(error)
        if why:
            again = f"load it again: llmos load {model.path} --name {model.name} --replace"
            reason = kernel.reason("tune.unserved", f"{model.name} still serves version {before}: {why}", again)
        else:
            text = f"{model.name} went from version {before} to {run.version}, which {run.id} has made"
            reason = kernel.reason("model.swapped", text, "a promoted result is served by its name")
        kernel.decide([run.id, model.id], reason, "warning" if why else "info")


def _refused(kernel: Kernel, asked: Request | None, run: Run, model: ModelObject) -> str:
    """Why a model stays what it is; empty when it may go over.

    A program that has ended, or that spoke to the kernel before this one, can still say so of what its user has loaded.
    """
    if asked is not None and asked.session.id in kernel.sessions.by_id:
        if Right.MANAGE not in kernel.sessions.rights_for(asked.session, model):
            return "the program that began the task may not manage it"
    elif not run.ambient:
        return "the program that began the task has ended, and might manage only what it was given"
    elif model.owner != run.owner:
        return "it was loaded by another user than the one who began the task"
    if adapters := kernel.models.adapters_of(model):
        return f"it has adapters, which would leave with it: {names_of(adapters)}"
    return ""
