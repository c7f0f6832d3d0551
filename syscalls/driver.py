"""The kernel-host interface: what the kernel asks of a driver's process, and what that process reports.

Same machinery as the syscalls, own table, own version. A host connects, sends a `beat`, is asked to `start`, and sends
a `ready` event once its driver works. Every call has exactly one terminal answer; `load`, `submit` and other long ones
may send `progress` or `chunk` frames first. A chunk frame carries `items`, pairs of request id and chunk, so that one
frame serves all requests of a step. Hosts never issue syscalls.
"""

from __future__ import annotations

from typing import Annotated, Any

from .answers import (
    ContextOpened, Folder, FsReport, Inspected, LeaseGiven, Opened, Stats, Tuning, Version,
)  # fmt: skip
from .errors import (
    BadModel, BadState, Busy, Conflict, DeviceFault, Exists, NoDeviceMemory, NoSpace, NotDirectory, NotFound,
    NotSupported, ReadOnly,
)  # fmt: skip
from .events import (
    VERSION, Beat, Capacity, DeviceFacts, Fault, HostEvent, Memory, MetricEvent, Overrun, Ready, Spent, TuneEnded,
    TuneProgress,
)  # fmt: skip
from .spec import Call, Stream, Table
from .types import (
    Argument, Chunk, Data, Done, EmbedOptions, Entry, Freed, Hit, Inference, Input, LedgerRow, LoadOptions,
    Reason, Sampling, TransformRecipe, TuneRecipe, Value, Written,
)  # fmt: skip

__all__ = [
    "VERSION", "Beat", "Capacity", "ContextOpened", "DeviceFacts", "Fault", "Folder", "FsReport", "HostEvent",
    "Inspected", "LeaseGiven", "Memory", "MetricEvent", "Opened", "Overrun", "Ready", "Spent", "Stats", "TuneEnded",
    "TuneProgress", "Tuning", "Version",
]  # fmt: skip

HOST_CALLS = Table()


class LocalFile(Value):
    """A file of this machine that a filesystem host located; valid until `release`."""

    name: str
    path: str
    bytes: int
    offset: int = 0
    sha256: str = ""


class Located(Value):
    """A model or other object of a file system, as files of this machine."""

    path: str
    version: str
    files: list[LocalFile]
    manifest: dict[str, Any] = {}
    token: str = ""
    draft: Located | None = None
    """The smaller model that guesses for this one; the kernel puts it here for `LoadOptions.draft`."""
    source: str = ""
    """The source of the file system that it is from; the kernel puts it here."""


class BufferFile(Argument):
    """Where a shared buffer that a request names can be mapped."""

    path: str
    bytes: int


class Work(Argument):
    """One inference for a device host; `buffers` are keyed by the handle as text."""

    id: str
    model: str
    input: Input
    task: str = "auto"
    sampling: Sampling = Sampling()
    embed: EmbedOptions | None = None
    context: str = ""
    stream: bool = False
    tenant: str = ""
    buffers: dict[str, BufferFile] = {}
    options: dict[str, Any] = {}


class HostManifest(Argument):
    """What a host is allowed and told: the driver's name, its thread budget and the configuration of its driver."""

    driver: str
    threads: int = 1
    memory_bytes: int = 0
    config: dict[str, Any] = {}


class Loaded(Value):
    """A model that is on the device."""

    architecture: str
    tasks: list[str]
    context: int
    parameters: int
    rows: list[LedgerRow]
    rung: str = ""
    rung_reasons: list[Reason] = []
    chat: bool = False
    slots: int = 1
    """How many requests may run at once."""
    contexts: list[str] = []
    """Of a model that was put to sleep: its conversations that go on when it wakes."""


class PlanRows(Value):
    rows: list[LedgerRow]


class HostStart(Call[Done], name="start", table=HOST_CALLS):
    """Load the driver and make it ready."""

    manifest: HostManifest


class HostPlan(Call[PlanRows], name="plan", table=HOST_CALLS, errors=(BadModel, NotSupported)):
    """Say how many bytes a model would take, without allocating."""

    model: Located
    options: LoadOptions = LoadOptions()


class HostLoad(Call[Loaded], name="load", table=HOST_CALLS, errors=(BadModel, NotSupported, NoDeviceMemory)):
    """Load a model under the given id; `base` names the model that an adapter is for."""

    id: str
    model: Located
    options: LoadOptions = LoadOptions()
    base: str = ""


class HostUnload(Call[Freed], name="unload", table=HOST_CALLS, errors=(NotFound, Busy)):
    id: str


class HostSleep(Call[Loaded], name="sleep", table=HOST_CALLS, errors=(NotFound, BadState)):
    """Free the device bytes of a model, keep what makes waking fast; pages of its conversations may take `host_bytes`
    of host memory, None: as the driver thinks fit."""

    id: str
    host_bytes: int | None = None


class HostWake(Call[Loaded], name="wake", table=HOST_CALLS, errors=(NotFound, BadState, NoDeviceMemory, BadModel)):
    id: str


class HostSwap(
    Call[Loaded], name="swap", table=HOST_CALLS, errors=(NotFound, BadModel, NotSupported, NoDeviceMemory, Busy)
):
    """Replace the weights under an id by another version of the model; Busy while adapters are loaded on it."""

    id: str
    model: Located
    options: LoadOptions = LoadOptions()


class HostAdapter(Call[Loaded], name="adapter", table=HOST_CALLS, errors=(NotFound, BadModel, NotSupported)):
    """Add or drop an adapter of a loaded model."""

    id: str
    base: str
    action: Annotated[str, "add or drop"]
    model: Located | None = None


class HostSubmit(
    Call[Stream[Chunk, Inference]],
    name="submit",
    table=HOST_CALLS,
    errors=(NotFound, NotSupported, BadState, DeviceFault, NoDeviceMemory),
):
    """Run one inference; chunks come first when `work.stream` is set."""

    work: Work


class HostCancel(Call[Done], name="cancel", table=HOST_CALLS):
    """End a request within one step; its terminal answer follows as usual."""

    id: str


class HostPreempt(Call[Done], name="preempt", table=HOST_CALLS, errors=(NotSupported,)):
    id: str


class HostCredit(Call[Done], name="credit", table=HOST_CALLS):
    id: str
    credit: int


class HostSetShares(Call[Done], name="set_shares", table=HOST_CALLS, errors=(NotSupported,)):
    shares: dict[str, float]


class HostSetBudget(Call[Done], name="set_budget", table=HOST_CALLS, errors=(NotSupported,)):
    budget: dict[str, float]


class HostOpenContext(
    Call[ContextOpened],
    name="open_context",
    table=HOST_CALLS,
    errors=(NotFound, NoDeviceMemory, NotSupported, BadState),
):
    id: str
    model: str
    parent: str = ""
    max_tokens: int = 0


class HostDropContext(Call[Freed], name="drop_context", table=HOST_CALLS, errors=(NotFound,)):
    id: str


class HostLease(Call[LeaseGiven], name="lease", table=HOST_CALLS, errors=(NotSupported, NoDeviceMemory)):
    """Allocate bytes, with `share` so that another program can map them: a device of host memory makes a file at
    `path`, of mode 0600."""

    id: str
    bytes: int
    share: bool = False
    path: str = ""


class HostEndLease(Call[Freed], name="end_lease", table=HOST_CALLS, errors=(NotFound,)):
    id: str


class HostTune(
    Call[Tuning], name="tune", table=HOST_CALLS,
    errors=(NotSupported, NotFound, Exists, BadState, NoDeviceMemory, BadModel),
):  # fmt: skip
    """Begin a tuning job on a loaded model: `TuneProgress` tells how far it is and `TuneEnded` how it ended; `cancel`
    ends it. With `dry_run` it is only planned.

    The result is written into the empty folder `folder`. Checkpoints are written into `keep`, and what lies there is
    gone on from. `base_path` is the path of the model, for the lineage of the result.
    """

    id: str
    model: str
    recipe: TuneRecipe
    data: Located
    folder: str
    keep: str
    base_path: str = ""
    dry_run: bool = False
    models: dict[str, str] = {}


class HostTransform(Call[Done], name="transform", table=HOST_CALLS, errors=(NotSupported, BadModel)):
    id: str
    sources: list[Located]
    recipe: TransformRecipe
    folder: str


class HostCheckpoint(Call[Done], name="checkpoint", table=HOST_CALLS, errors=(NotSupported, NotFound)):
    """Have a tuning job write a checkpoint soon; an event of stage `checkpoint` says that it is written."""

    id: str


class HostPause(Call[Done], name="pause", table=HOST_CALLS, errors=(NotSupported, NotFound)):
    """Keep a tuning job where it is, with its memory."""

    id: str


class HostResume(Call[Done], name="resume", table=HOST_CALLS, errors=(NotSupported, NotFound)):
    """Let a tuning job go on."""

    id: str


class HostInspect(Call[Inspected], name="inspect", table=HOST_CALLS, errors=(NotSupported, BadState)):
    """Tell what only the driver knows of its device, for people; the topic `ops` is what serves each op, and why."""

    topic: str


class HostStats(Call[Stats], name="stats", table=HOST_CALLS):
    """Answered by the I/O thread at once, whatever runs."""


class HostDrain(Call[Done], name="drain", table=HOST_CALLS):
    """Finish what runs, accept nothing new."""


class HostStop(Call[Done], name="stop", table=HOST_CALLS):
    """End the process after the answer."""


FILE_ERRORS = (NotFound, NotDirectory, NotSupported, ReadOnly, NoSpace, Conflict, Exists, Busy, BadModel)


class HostOpen(Call[Opened], name="open", table=HOST_CALLS, errors=FILE_ERRORS):
    source: str
    path: str
    mode: str = "r"
    expected_version: str | None = None


class HostRead(Call[Data], name="read", table=HOST_CALLS, errors=FILE_ERRORS):
    """Read bytes; with `into`, they are put at the start of that buffer file and `data` stays empty."""

    token: str
    offset: int
    count: int
    into: BufferFile | None = None


class HostWrite(Call[Written], name="write", table=HOST_CALLS, errors=FILE_ERRORS):
    """Write bytes; with `source`, they are taken from `source_offset` of that buffer file."""

    token: str
    offset: int
    data: bytes = b""
    source: BufferFile | None = None
    source_offset: int = 0
    source_length: int = 0


class HostClose(Call[Version], name="close", table=HOST_CALLS, errors=FILE_ERRORS):
    """End an open file; what was written becomes visible now. `discard` drops it instead."""

    token: str
    discard: bool = False


class HostList(Call[list[Entry]], name="list", table=HOST_CALLS, errors=FILE_ERRORS):
    source: str
    path: str
    after: str = ""


class HostStat(Call[Entry], name="stat", table=HOST_CALLS, errors=FILE_ERRORS):
    source: str
    path: str


class HostRemove(Call[Done], name="remove", table=HOST_CALLS, errors=FILE_ERRORS):
    source: str
    path: str


class HostSearch(Call[list[Hit]], name="search", table=HOST_CALLS, errors=FILE_ERRORS):
    source: str
    path: str
    query: str
    filters: dict[str, Any] = {}
    limit: int = 8


class HostLocate(Call[Located], name="locate", table=HOST_CALLS, errors=FILE_ERRORS):
    """Give the files behind a path as files of this machine, checked; valid until `release`."""

    source: str
    path: str
    version: str = ""


class HostRelease(Call[Done], name="release", table=HOST_CALLS):
    token: str


class HostStage(Call[Folder], name="stage", table=HOST_CALLS, errors=FILE_ERRORS):
    """Make a folder for a result that `commit` will publish: empty, or with the files of the folder `take` of this
    machine, which stay where they are too."""

    source: str
    path: str
    take: str = ""


class HostCommit(Call[Version], name="commit", table=HOST_CALLS, errors=FILE_ERRORS):
    """Publish a staged folder as a new version of its path."""

    token: str
    manifest: dict[str, Any]
    expected_version: str | None = None


class HostFsControl(Call[FsReport], name="fs_control", table=HOST_CALLS, errors=FILE_ERRORS):
    """alias, rollback, fsck, gc."""

    source: str
    action: str
    options: dict[str, Any] = {}
