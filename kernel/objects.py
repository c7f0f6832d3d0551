"""The objects that handles name. Each can describe itself; what a call does to them lives in the handlers."""

from __future__ import annotations

from dataclasses import dataclass, field
from collections.abc import Sequence
from typing import Any, Literal

from llmos.syscalls.driver import ContextOpened, LeaseGiven, Loaded, Located
from llmos.syscalls.types import Kind, LedgerRow, LoadOptions, ObjectInfo, Reason, TaskResult

from .buffers import BufferFile
from .children import Child
from .link import Link
from .namespace import MountPoint
from .pending import Future
from .requests import Request
from .session import Session
from .speed import Speed
from .supervisor import Driver

Content = bytes
"""The text of a file that the kernel made (its own name, since a field is called `bytes`)."""

EventKind = Literal["device", "driver", "handle", "lease", "model", "session", "task"]
"""What events are about."""

RESERVATION = "reservation"
"""The kind of a lease that is bytes in the ledger and nothing else."""

SHARED_KINDS = frozenset({Kind.SYSTEM, Kind.DEVICE, Kind.DRIVER, Kind.MODEL})
"""Kinds that policy may open to users who do not own the object."""


@dataclass(kw_only=True, eq=False)
class KernelObject:
    """Base: identity, owner and age. An empty owner means the system's own."""

    id: str
    kind: Kind
    name: str
    owner: str = ""
    since: float = 0.0

    def describe(self) -> ObjectInfo:
        return ObjectInfo(
            id=self.id,
            kind=self.kind,
            name=self.name,
            state=self.state(),
            health=self.health(),
            bytes=self.size(),
            owner=self.owner,
            since=self.since,
            fields=self.fields(),
            reasons=self.reasons(),
        )

    def state(self) -> str:
        return "open"

    def health(self) -> str:
        return "ok"

    def size(self) -> int:
        return 0

    def fields(self) -> dict[str, Any]:
        return {}

    def reasons(self) -> list[Reason]:
        return []


@dataclass(kw_only=True, eq=False)
class SystemObject(KernelObject):
    facts: dict[str, Any]

    def state(self) -> str:
        return "running"

    def fields(self) -> dict[str, Any]:
        return self.facts


@dataclass(kw_only=True, eq=False)
class SessionObject(KernelObject):
    session: Session

    def fields(self) -> dict[str, Any]:
        s = self.session
        return {
            "program": s.program,
            "pid": s.peer.pid,
            "uid": s.peer.uid,
            "tenant": s.tenant,
            "requests": len(s.requests),
            "task": s.task,
            "limits": {name: getattr(s.limits, name) for name in s.limits.__struct_fields__},
            "mounts": {point.path: point.filesystem for point in s.mounts.points()},
        }


@dataclass(kw_only=True, eq=False)
class DriverObject(KernelObject):
    driver: Driver

    def state(self) -> str:
        return self.driver.state.value

    def health(self) -> str:
        state = self.driver.state.value
        return "ok" if state == "ready" else state if state in ("starting", "suspect", "failed") else "down"

    def fields(self) -> dict[str, Any]:
        d = self.driver
        return {
            "group": "device" if d.is_device else "filesystem",
            "pid": d.pid,
            "restarts": d.policy.restarts,
            "cause": d.cause,
            "threads": d.threads,
            "steps": d.beat.steps,
            "busy_with": d.beat.busy_with,
        }


@dataclass(kw_only=True, eq=False)
class DeviceObject(DriverObject):
    limit: int = 0
    """Bytes that models and leases may take, where that was set; it outlives the driver's process."""

    def size(self) -> int:
        return self.driver.facts.memory_bytes if self.driver.facts else 0

    def fields(self) -> dict[str, Any]:
        facts = self.driver.facts
        mine: dict[str, Any] = {"driver": self.driver.name, "restarts": self.driver.policy.restarts}
        if facts is not None:
            mine.update(kind=facts.kind, description=facts.description, memory_bytes=facts.memory_bytes)
            mine["features"] = dict(facts.features)
        if self.driver.cause:
            mine["cause"] = self.driver.cause
        return mine


@dataclass(kw_only=True, eq=False)
class ModelObject(KernelObject):
    """A model on a device, and the recipe to load it again."""

    path: str
    version: str
    driver: Driver
    files: Driver
    located: Located
    options: LoadOptions
    base: ModelObject | None = None
    host_id: str = ""
    status: str = "cold"
    loaded: Loaded | None = None
    loading: Future[Any] | None = None
    idle: Future[Any] | None = None
    falling: Future[None] | None = None
    """Until it sleeps, from when that was asked for."""
    watchers: list[Request] = field(default_factory=list)
    why: list[Reason] = field(default_factory=list)
    requests: int = 0
    resting: int | None = None
    """Bytes of the machine's memory that it held when it slept last."""
    used: float = 0.0
    speed: Speed = field(default_factory=Speed)

    def state(self) -> str:
        return self.status

    def health(self) -> str:
        serves = self.status in ("awake", "asleep", "cold")
        return "failed" if self.status == "failed" else "ok" if serves else self.status

    def size(self) -> int:
        return sum(max(row.predicted, row.allocator) for row in self.rows())

    def rows(self) -> Sequence[LedgerRow]:
        """What it holds while it is awake, as its driver told when it was loaded or woke."""
        return self.loaded.rows if self.loaded is not None else ()

    def reasons(self) -> list[Reason]:
        return [*self.why, *(self.loaded.rung_reasons if self.loaded is not None else ())]

    def fields(self) -> dict[str, Any]:
        mine: dict[str, Any] = {
            "path": self.path,
            "version": self.version,
            "device": self.driver.name,
            "keep_alive": self.options.keep_alive,
            "requests": self.requests,
            "used": self.used,
            "weights": self.host_id,
            "tokens_per_s": round(self.speed.stream, 3),
            "throughput": round(self.speed.rate, 3),
            "first_token_s": round(self.speed.first_token_s, 6),
            "base": self.base.id if self.base is not None else "",
        }
        if self.loaded is not None:
            for name in ("architecture", "tasks", "context", "parameters", "rung", "chat", "slots"):
                mine[name] = getattr(self.loaded, name)
            mine["rung_reasons"] = [reason.text for reason in self.loaded.rung_reasons]
        return mine


@dataclass(kw_only=True, eq=False)
class ContextObject(KernelObject):
    model: ModelObject
    opened: ContextOpened
    parent: str = ""
    status: str = "open"
    busy: bool = False

    def state(self) -> str:
        return self.status

    def size(self) -> int:
        return self.opened.bytes

    def fields(self) -> dict[str, Any]:
        return {
            "model": self.model.id,
            "tokens": self.opened.tokens,
            "max_tokens": self.opened.max_tokens,
            "parent": self.parent,
        }


@dataclass(kw_only=True, eq=False)
class LeaseObject(KernelObject):
    device: str
    bytes: int
    session: Session
    expires: float | None = None
    given: LeaseGiven | None = None
    """What another program can map; None: bytes in the ledger and nothing else."""
    file: BufferFile | None = None

    def size(self) -> int:
        return self.bytes

    def fields(self) -> dict[str, Any]:
        facts = {"device": self.device, "expires": self.expires, "session": self.session.id, "kind": RESERVATION}
        return facts if self.given is None else {**facts, "kind": self.given.kind, "path": self.given.path}


@dataclass(kw_only=True, eq=False)
class BufferObject(KernelObject):
    file: BufferFile
    bytes: int
    session: Session

    def size(self) -> int:
        return self.bytes

    def fields(self) -> dict[str, Any]:
        return {"path": str(self.file.path), "session": self.session.id}


@dataclass(kw_only=True, eq=False)
class FileObject(KernelObject):
    """An open file: of a driver (`token`) or a text the kernel made (`content`)."""

    path: str
    mode: str
    inner: str = ""
    """The path inside of the file system that keeps it."""
    version: str = ""
    content: Content | None = None
    bytes: int = 0
    driver: Driver | None = None
    link: Link | None = None
    token: str = ""

    def size(self) -> int:
        return self.bytes

    def fields(self) -> dict[str, Any]:
        return {"path": self.path, "mode": self.mode, "version": self.version}


@dataclass(kw_only=True, eq=False)
class MountObject(KernelObject):
    point: MountPoint
    session: Session

    def fields(self) -> dict[str, Any]:
        p = self.point
        return {"path": p.path, "filesystem": p.filesystem, "source": p.source, "mode": p.mode}


@dataclass(kw_only=True, eq=False)
class TaskObject(KernelObject):
    """A process that the kernel runs for somebody: a program of theirs, or a job that brings or sends a model."""

    argv: list[str]
    work: str = "program"
    """What kind of work it is; clients see it as the task's kind."""
    status: str = "running"
    child: Child | None = None
    session: Session | None = None
    exit: int | None = None
    output: str = ""
    progress: dict[str, Any] = field(default_factory=dict)
    value: dict[str, Any] | None = None
    """The result; without one it is what the process has printed."""
    why: list[Reason] = field(default_factory=list)
    waiters: list[Future[TaskResult]] = field(default_factory=list)

    def state(self) -> str:
        return self.status

    def health(self) -> str:
        return "failed" if self.status == "failed" else "ok"

    def fields(self) -> dict[str, Any]:
        return {
            "kind": self.work,
            "argv": self.argv,
            "pid": self.child.pid if self.child else 0,
            "exit": self.exit,
            "session": self.session.id if self.session else "",
            "progress": self.progress,
        }

    def reasons(self) -> list[Reason]:
        return self.why

    def result(self) -> TaskResult:
        value = {"output": self.output} if self.value is None else self.value
        return TaskResult(id=self.id, state=self.status, exit=self.exit, value=value, reasons=self.why)
