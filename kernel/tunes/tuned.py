"""One tuning task as the kernel knows it, and small facts about it that need no kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from llmos.syscalls.driver import Located
from llmos.syscalls.errors import Exists, NotSupported
from llmos.syscalls.events import TuneEnded
from llmos.syscalls.types import LedgerRow, WorkClass

from ..ledger import HOST
from ..link import Link
from ..namespace import MountPoint, normalize
from ..objects import ModelObject, TaskObject
from ..pending import Future, Job
from ..policy import KERNEL_FILESYSTEM
from ..recipes import predicted
from ..requests import Request
from ..supervisor import Driver
from .runs import Place, Run
from .stored import RUN

CANDIDATE = "-candidate"
"""Behind the name of a result that is not good enough for it."""

WORK = "tune"
"""The kind of such tasks, as clients see it."""


@dataclass(eq=False)
class Tuned:
    """One task and its job."""

    run: Run
    task: TaskObject
    over: Future[TuneEnded]
    model: ModelObject | None = None
    """None after a boot, until it is there again."""
    others: dict[str, ModelObject] = field(default_factory=dict)
    """What its recipe names, by their names there."""
    asked: Request | None = None
    """The call that began it; None after a boot."""
    job: Job | None = None
    held: list[tuple[Driver, Located]] = field(default_factory=list)
    """The data, kept for it."""
    admitted: bool = False
    """Its bytes are promised."""
    begun: bool = False
    """Its driver has it."""
    pausing: bool = False
    """Its job is to be paused when it has written a checkpoint, in case that its host ends meanwhile."""
    rests: bool = False
    """Its job is paused at the driver."""
    storing: bool = False
    cancelled: bool = False
    again: bool = False
    """It is to leave its driver with the next checkpoint, and begins again from there."""
    wanted: Future[None] | None = None
    """Done when it is to go on, while it is paused and its driver does not have it."""
    deaths: int = 0
    furthest: int = 0
    kept_at: int = 0
    """When it wrote its last checkpoint, or began."""

    @property
    def models(self) -> list[ModelObject]:
        """All that it works with; none after a boot, until they are there again."""
        return [] if self.model is None else [self.model, *self.others.values()]

    @property
    def link(self) -> Link | None:
        """The way to its job, while that is there."""
        return self.model.driver.link if self.model is not None and self.begun else None


def place_of(point: MountPoint, inner: str, path: str) -> Place:
    """What is kept of a path, to find it again without the session. Raises NotSupported."""
    if point.filesystem == KERNEL_FILESYSTEM:
        raise NotSupported(f"{path} is made by the kernel", why="no stored file")
    return Place(path=normalize(path), filesystem=point.filesystem, source=point.source, inner=inner)


def class_of(asked: WorkClass) -> str:
    """Nobody waits for each step of a job: it is batch work at most."""
    return (WorkClass.BATCH if asked is WorkClass.BATCH else WorkClass.BACKGROUND).value


def sizes(rows: Sequence[LedgerRow]) -> tuple[dict[str, int], dict[str, int]]:
    """Planned bytes by use: of the device itself, and of the machine's memory beside it."""
    here = predicted([row for row in rows if row.device != HOST])
    return here, predicted([row for row in rows if row.device == HOST])


def exists(path: str) -> Exists:
    """What is said where the result was to be."""
    name = path.partition("@")[0]
    return Exists(f"{path} exists already; choose another name, or store a version of it: {name}@NAME")


def candidate(out: Place) -> Place:
    """Where a result goes that is not to be what its name means, while nothing else has that name: another name."""
    path, inner = out.path.partition("@")[0], out.inner.partition("@")[0]
    return Place(path=f"{path}{CANDIDATE}", filesystem=out.filesystem, source=out.source, inner=f"{inner}{CANDIDATE}")


def manifest(run: Run, ended: TuneEnded) -> dict[str, Any]:
    """What the result says of itself: what its driver told, where it comes from and how to make it again."""
    told = dict(ended.manifest)
    recipe = {name: value for name, value in msgspec.to_builtins(run.recipe).items() if value not in ("", None, [], {})}
    data = run.facts.get("data")
    digest = str(data.get("digest", "")) if isinstance(data, dict) else ""
    how = {
        "path": run.base.place.path, "version": run.base.version, "how": str(told.pop("how", "adapter")),
        "recipe": msgspec.json.encode({**recipe, "code": run.code, "data": digest}, order="deterministic").decode(),
        "data_sha256": str(run.facts.get("data_sha256", "")),
    }  # fmt: skip
    return {**told, RUN: run.id, "parents": [how], "metrics": dict(run.values)}


def sentence(run: Run) -> str:
    """What came of a run, for people."""
    known = [(name.replace("_", " "), run.values[name]) for name in ("loss", "eval_loss") if name in run.values]
    losses = "".join(f", {name} {value:g}" for name, value in known)
    verdict = "" if run.promoted else f"; not promoted, since {run.recipe.promote_if} does not hold"
    return f"{run.out.path.partition('@')[0]}@{run.version}: {run.step} steps{losses}{verdict}"
