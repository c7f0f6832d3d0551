"""What is loaded by the name of a result goes over to it: the new version is loaded beside the old one and takes its
name, requests under way finish on the old one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmos.syscalls.errors import LlmosError
from llmos.syscalls.types import Right

from ..following import CURRENT
from ..objects import ModelObject
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


async def exchange(kernel: Kernel, asked: Request, run: Run) -> None:
    """Have them go over, for the program that had asked for the run; what cannot go over serves what it did."""
    session = asked.session
    for model in followers(kernel, run):
        request = Request(kernel, session, 0, kernel.new_id("r"), asked.spec, asked.call, {})
        request.receivers.clear()  # nobody waits for this but the task
        before, why = model.version, ""
        if session.id not in kernel.sessions.by_id:
            why = "the program that began the task has ended"
        elif Right.MANAGE not in kernel.sessions.rights_for(session, model):
            why = "the program that began the task may not manage it"
        else:
            options = replace(model.options, name=model.name, replace=True)
            try:
                await kernel.models.load(request, model.driver, options, model.base, model.path)
            except LlmosError as error:
                why = str(error)
        if why:
            again = f"load it again: llmos load {model.path} --name {model.name} --replace"
            text = f"{model.name} still serves version {before}: {why}"
            reason = kernel.reason("tune.unserved", text, again)
        else:
            text = f"{model.name} went from version {before} to {run.version}, which {run.id} has made"
            reason = kernel.reason("model.swapped", text, "a promoted result is served by its name")
        kernel.decide([run.id, model.id], reason, "warning" if why else "info")
