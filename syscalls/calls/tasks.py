"""Work that outlives a call."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..errors import Exists, NoResources, NotFound, ReadOnly
from ..spec import Call
from ..types import GrantTo, Handle, Kind, Limits, MountTo, Right, Task, TaskResult, TaskState


class SpawnProgram(Call[Task], name="spawn_program", errors=(NotFound, NoResources, ReadOnly, Exists)):
    """Start a program with exactly these handles and mounts, and no other authority. Only for the kernel's own user."""

    system: Annotated[Handle, Kind.SYSTEM, Right.CREATE, "the system"]
    argv: Annotated[list[str], Meta(min_length=1), "program and arguments"]
    grants: Annotated[list[GrantTo], "handles it starts with; each needs GRANT"] = []
    mounts: Annotated[list[MountTo], "paths it sees"] = []
    limits: Annotated[Limits, "what it may use at most"] = Limits()


class WaitTask(Call[TaskResult], name="wait_task"):
    """Wait until a task has ended, or until the deadline."""

    task: Annotated[Handle, Kind.TASK, Right.WAIT, "the task"]


class CancelTask(Call[TaskState], name="cancel_task", errors=(NotFound,)):
    """Cancel a task, or one of the caller's own requests by its id. After the answer nothing more arrives for it."""

    task: Annotated[Handle | None, Kind.TASK, Right.MANAGE, "the task"] = None
    request: Annotated[str, "stable id of a request, instead of a task"] = ""
    grace_s: Annotated[float, Meta(ge=0, le=3600), "seconds to end by itself before it is killed"] = 2.0
