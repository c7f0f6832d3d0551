"""Loaded models follow the names that they were loaded by: when an alias is moved, or a model is rolled back, they go
over to what the name means now, each beside its old version, so that no request is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from llmos.syscalls.errors import Denied, LlmosError
from llmos.syscalls.types import Right

from .namespace import MountPoint
from .objects import ModelObject
from .residency import State
from .session import Session

if TYPE_CHECKING:
    from .core import Kernel
    from .requests import Request

CURRENT = ("", "latest")
"""Selectors of a path that mean whatever version is current."""


def followers(
    kernel: Kernel, session: Session, point: MountPoint, name: str, selectors: Collection[str]
) -> list[ModelObject]:
    """The loaded models and adapters whose path is `name` of this mount with one of the selectors.

    Raises:
        Denied: one of them is not this session's to change.
    """
    found = []
    wanted = "/" + name.strip("/")
    for model in kernel.models.by_id.values():
        path, _, selector = model.path.partition("@")
        if selector in selectors and _means(session, path, point, wanted):
            if Right.MANAGE not in kernel.sessions.rights_for(session, model):
                raise Denied(f"reload: {model.name} is not yours to exchange", missing=Right.MANAGE)
            found.append(model)
    return found


async def follow(request: Request, models: Collection[ModelObject], version: str) -> list[Mapping[str, Any]]:
    """Exchange each model for what its path means now, `version`; one that is already there stays.

    Raises what the first failing load raised, after all were tried: those that failed serve their old version.
    """
    kernel = request.kernel
    moved: list[Mapping[str, Any]] = []
    failed: list[tuple[ModelObject, LlmosError]] = []
    for model in models:
        before = model.version
        if before == version:
            continue
        try:
            if kernel.residency.state(model.id) in (State.ASLEEP, State.COLD):
                await kernel.models.wake(model, request)
            after = await kernel.runner.detached(_exchanged(request, model))
        except LlmosError as error:
            failed.append((model, error))
        else:
            moved.append({"model": model.name, "from": before, "to": after})
    if failed:
        model, first = failed[0]
        kept = f"{model.name} still serves {model.version}"
        first.text = f"the name means version {version} now, but {kept}: {first.text}"
        for one, why in failed:
            kernel.log("model", f"{one.name} still serves version {one.version}: {why}", one.id, level="warning")
        raise first
    return moved


async def _exchanged(request: Request, model: ModelObject) -> str:
    """The version that serves by the model's name now. An adapter is loaded anew beside the old one and takes its name:
    handles to the old one stay with it."""
    if model.base is None:
        await request.kernel.swaps.exchange(request, model, model.path)
        return model.version
    return (await request.kernel.models.newer(model)).version


def _means(session: Session, path: str, point: MountPoint, wanted: str) -> bool:
    """Whether a path of this session's namespace is `wanted` of the mount."""
    try:
        at, inner = session.mounts.resolve(path)
    except LlmosError:
        return False
    return (at.filesystem, at.source, inner) == (point.filesystem, point.source, wanted)
