"""Sessions, objects, devices, files, tasks."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from .authority import Handle, Rights
from .common import Argument, BytesOut, Reason, Value
from .models import TunePlan


class Limits(Argument):
    """What a session may use at most; 0 means no limit of its own."""

    handles: Annotated[int, Meta(ge=0)] = 0
    queued_requests: Annotated[int, Meta(ge=0)] = 0
    buffer_bytes: Annotated[int, Meta(ge=0)] = 0
    lease_bytes: Annotated[int, Meta(ge=0)] = 0
    tokens_per_minute: Annotated[int, Meta(ge=0)] = 0
    sessions: Annotated[int, Meta(ge=0)] = 0
    requests_per_minute: Annotated[int, Meta(ge=0)] = 0
    """Inferences that may begin."""
    concurrent_requests: Annotated[int, Meta(ge=0)] = 0
    """Inferences that may wait and run at once."""
    device_seconds_per_day: Annotated[int, Meta(ge=0)] = 0
    """Device time of its inferences; it comes back evenly over the day."""
    device_bytes: Annotated[int, Meta(ge=0)] = 0
    """Bytes of devices in leases and in models that it loaded."""
    weight: Annotated[int, Meta(ge=0)] = 0
    """Its share of a device's time beside others; 0 counts as 100. Only policy sets it, of users and of tenants."""


class LimitsOut(Limits, forbid_unknown_fields=False):
    """The same in a result, where unknown fields are ignored."""


class WireLimits(Value):
    """Sizes both sides keep to; checked by the sender too."""

    message_bytes: int
    inline_bytes: int
    depth: int
    items: int


class Grant(Value):
    """A first handle: what policy (or the parent program) gave this session."""

    handle: Handle
    kind: str
    name: str
    rights: Rights


class Welcome(Value):
    """The session that `hello` opened."""

    session: str
    token: str
    protocol: int
    features: list[str]
    limits: LimitsOut
    grants: list[Grant]
    wire: WireLimits
    handle: Handle
    system: Handle


class NewHandle(Value):
    """A handle that a call made."""

    handle: Handle
    rights: Rights = frozenset()


class Revoked(Value):
    """How many handles a revocation closed."""

    closed: int


class ObjectInfo(Value):
    """One object of the system."""

    id: str
    kind: str
    name: str
    state: str
    health: str = "ok"
    rights: Rights = frozenset()
    bytes: int = 0
    owner: str = ""
    since: float = 0.0
    fields: dict[str, Any] = {}
    handle: Handle | None = None
    reasons: list[Reason] = []


class Lease(Value):
    """Bytes of a device that the ledger keeps free for the holder."""

    handle: Handle
    id: str
    device: str
    bytes: int
    expires: float | None
    """Seconds since the epoch; None while the handle is open."""
    share: bool
    kind: str = "reservation"
    """reservation: bytes that are kept free; shm: a file to map; cuda-ipc: a handle that CUDA opens."""
    mapping: str = ""
    """The path of the file, or what CUDA opens, in hexadecimal."""


class Buffer(Value):
    """A shared-memory file that the kernel owns; map it by `path`."""

    handle: Handle
    id: str
    name: str
    path: str
    bytes: int


class File(Value):
    """An open file."""

    handle: Handle
    path: str
    bytes: int
    version: str


class Data(Value):
    """Bytes that were read."""

    data: BytesOut
    eof: bool
    path: str = ""
    """Where to map the buffer when `data` is one."""


class Written(Value):
    """How many bytes were written."""

    count: int


class Entry(Value):
    """One name in a folder."""

    path: str
    kind: Annotated[str, "file, folder, model, device"]
    bytes: int = 0
    version: str = ""
    mtime: float = 0.0
    fields: dict[str, Any] = {}


class Mount(Value):
    """A file system in the namespace."""

    handle: Handle
    path: str
    filesystem: str
    source: str
    mode: str


class Hit(Value):
    """One answer of a search, best first."""

    path: str
    score: float
    start: int = 0
    end: int = 0
    fields: dict[str, Any] = {}
    reason: str = ""


class GrantTo(Argument):
    """One handle of the caller that a new program starts with; no rights means all that the caller holds."""

    handle: Handle
    rights: Rights | None = None
    name: str = ""


class MountTo(Argument):
    """One path of the caller's namespace that a new program sees."""

    path: str
    mode: str = "ro"


class Task(Value):
    """Work that outlives a call."""

    handle: Handle
    id: str
    kind: str
    state: Annotated[str, "queued, running, paused, checkpointing, done, failed or cancelled; planned: not begun"]
    plan: TunePlan | None = None
    """Of a tuning that was only planned; its handle is 0."""


class TaskState(Value):
    """Where a task or request stands."""

    id: str
    state: str


class TaskResult(Value):
    """How a task ended."""

    id: str
    state: str
    exit: int | None = None
    value: Any = None
    reasons: list[Reason] = []
