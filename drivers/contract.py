"""What a driver implements: one class for a device, one for a filesystem.

Everything here is plain Python: a driver needs no knowledge of processes, sockets, handles or users. The host process
(`llmos.drivers.host`) owns those and calls the driver. Errors are raised from `llmos.syscalls.errors` (standard library
only), anything else that escapes a request is a fault and ends the process: the kernel restarts it.

Threads: every method is called on the work thread, except `cancel`, which may come from another one.
Ids of models, contexts and requests are text that the caller chose.
"""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from llmos.syscalls.errors import NotFound, NotSupported

from .requests import (
    AnswerResult as AnswerResult, ChoiceResult as ChoiceResult, ChunkEvent as ChunkEvent, DoneEvent as DoneEvent,
    EmbedSettings as EmbedSettings, FailedEvent as FailedEvent, LabelScore as LabelScore,
    LabelsResult as LabelsResult, MediaPart as MediaPart, Overrun as Overrun, Part as Part, Prompt as Prompt,
    Request as Request, SamplingParams as SamplingParams, ScoresResult as ScoresResult, SpanResult as SpanResult,
    SpansResult as SpansResult, StepEvent as StepEvent, TablePart as TablePart, TaskResult as TaskResult,
    TensorView as TensorView, TokenLogprob as TokenLogprob, TranscriptResult as TranscriptResult, Usage as Usage,
)  # fmt: skip
from .tunes import (
    TuneDoneEvent as TuneDoneEvent, TuneEvent as TuneEvent, TuneJob as TuneJob, TunePlan as TunePlan,
    TunePlannedEvent as TunePlannedEvent,
    TuneProgressEvent as TuneProgressEvent,
)  # fmt: skip

@dataclass(frozen=True)
class Facts:
    """What a device is. `memory_bytes` is all it could give to models, `foreign_bytes` what others hold of it now.

    `pool` names a memory that it shares with other devices: `host` is the machine's own; `unit` names the hardware
    whose time it shares with devices of the same unit, in other processes.
    """

    name: str
    kind: str
    memory_bytes: int
    foreign_bytes: int = 0
    description: str = ""
    features: Mapping[str, float | int | str] = field(default_factory=dict)
    pool: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Row:
    """Bytes of a device: `what` is weights, kv, workspace, tuning, lease, foreign, reserve or runtime (what the
    driver's process takes of the host for no model); `owner` an id or name.

    `predicted` is planned before loading, `allocator` is what the driver's own allocator holds, `driver` what the
    hardware or operating system reports. `device` is empty for the device itself; `host`: the bytes lie in the
    machine's memory, as those of models that sleep.
    """

    what: str
    owner: str
    predicted: int = 0
    allocator: int = 0
    driver: int = 0
    device: str = ""


@dataclass(frozen=True)
class SourceFile:
    """A readable local file that belongs to a model; `name` is its name inside the model's folder."""

    name: str
    path: Path
    bytes: int
    offset: int = 0


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are. `path` and `version` are for people to read.

    `draft` is the smaller model that is to guess for it, where `LoadSettings.draft` names one.
    """

    path: str
    version: str
    files: Sequence[SourceFile]
    manifest: Mapping[str, Any] = field(default_factory=dict)
    draft: ModelSource | None = None


@dataclass(frozen=True)
class LoadSettings:
    """How to load. `dtype`: auto, float32, bfloat16 or float16; `max_context` in tokens; the rest may be refused."""

    dtype: str = "auto"
    kv_dtype: str = "auto"
    max_context: int | None = None
    quant: Mapping[str, Any] | None = None
    draft: str = ""
    rung: str = ""
    prefix_cache: bool = True


@dataclass(frozen=True)
class LoadedModel:
    """A model on the device. `rung` is the runner that serves it and `rung_reasons` say why not a higher one."""

    architecture: str
    tasks: Sequence[str]
    context: int
    parameters: int
    rows: Sequence[Row]
    rung: str = ""
    rung_reasons: Sequence[str] = ()
    chat: bool = False
    slots: int = 1
    contexts: Sequence[str] = ()
    """Of a model that was put to sleep: its conversations that go on when it wakes."""


@dataclass(frozen=True)
class OpenedContext:
    tokens: int
    max_tokens: int
    bytes: int = 0


@dataclass(frozen=True)
class Leased:
    """Bytes of the device that another program may use: of kind `shm` those of the file `path`, which it maps; of kind
    `cuda-ipc` those of `handle`, which it opens with cudaIpcOpenMemHandle."""

    kind: str
    handle: bytes = b""
    path: str = ""


class ProgressSink(Protocol):
    """Called during long work; it is also the sign of life, so call it at least every few seconds."""

    def __call__(self, done: int, total: int, unit: str = "bytes", stage: str = "") -> None: ...


class Device(ABC):
    """An accelerator (or a CPU) that runs models. Override what the hardware can do; the rest says NotSupported."""

    name: ClassVar[str] = ""
    config_keys: ClassVar[Mapping[str, str]] = {}
    """Settings the driver reads from `[drivers.NAME]` of the configuration, with one line each."""

    def start(self, name: str, threads: int, config: Mapping[str, Any]) -> None:
        """Acquire the device. Called once, before anything else; import heavy libraries here, not at module level."""

    def stop(self) -> None:
        """Give everything back. Called once at the end, if the process lives to see it."""

    @abstractmethod
    def facts(self) -> Facts:
        """What this device is and how many bytes it has."""

    @abstractmethod
    def plan(self, source: ModelSource, settings: LoadSettings) -> Sequence[Row]:
        """The bytes a model would take (`predicted`), without allocating. Raises BadModel, NotSupported."""

    @abstractmethod
    def load(
        self, model: str, source: ModelSource, settings: LoadSettings, progress: ProgressSink, base: str = ""
    ) -> LoadedModel:
        """Load a model; with `base`, an adapter for that model. Raises BadModel, NotSupported, NoDeviceMemory."""

    @abstractmethod
    def unload(self, model: str) -> int:
        """Forget a model and end its requests; returns bytes freed. Raises NotFound."""

    @abstractmethod
    def submit(self, request: Request) -> None:
        """Accept a request to be advanced by `step`. Raises NotFound, BadArgument, TooLarge, NotSupported, BadState."""

    @abstractmethod
    def cancel(self, request: str) -> None:
        """Mark a request as cancelled; the next step ends it with a DoneEvent of reason `cancelled`. Any thread."""

    @abstractmethod
    def step(self) -> Sequence[StepEvent | TuneEvent]:
        """Advance the accepted requests and jobs by one bounded step; what happened: often nothing, if nothing
        streams."""

    @abstractmethod
    def memory(self) -> Sequence[Row]:
        """Every byte the driver holds, as rows."""

    def usage(self) -> Mapping[str, Usage]:
        """Of each request that runs what it took so far. Asked about twice a second, for the accounts of users."""
        return {}

    def set_shares(self, shares: Mapping[str, float]) -> None:
        """How models with work divide the device's time among them, by model; they add up to 1. One that is not named
        has the mean of the others, and all are equal while none is named."""
        raise NotSupported("this device divides its time by its own rules", why="the driver does not take shares")

    def set_budget(self, budget: Mapping[str, float]) -> None:
        """The least part of the time that `batch` and `background` work gets while higher classes want it; a class that
        is not named has the driver's own minimum. `recompute_tokens`: how many tokens a request of a lower class may
        have to compute again because it gave its memory to a higher one. `slice_s`: how long a tuning job may compute
        before it looks whether a request waits."""
        raise NotSupported("this device knows no classes of work", why="the driver does not take budgets")

    def preempt(self, request: str) -> None:
        """Let the others of its class go before a request; it goes on by itself, from where it was. Raises
        NotFound."""
        raise NotSupported("this device lets no request stand back", why="preempt is not implemented by the driver")

    def step_seconds(self) -> float:
        """How long the next step will take at most, as predicted; ten times this is what the kernel allows."""
        return 0.3

    def cache_usage(self) -> Mapping[str, float]:
        """Of each awake model with a cache of keys and values the share that requests hold, 0 to 1. Asked about once a
        second."""
        return {}

    def sleep(self, model: str, host_bytes: int | None = None) -> LoadedModel:
        """Free a model's device bytes and keep what makes `wake` fast; what its conversations have computed may take
        `host_bytes` of host memory, None: as the driver thinks fit."""
        raise NotSupported(f"this device cannot put {model} to sleep", why="sleep is not implemented by the driver")

    def wake(self, model: str, progress: ProgressSink) -> LoadedModel:
        """Undo `sleep`."""
        raise NotSupported(f"this device cannot wake {model}", why="sleep is not implemented by the driver")

    def inspect(self, topic: str) -> Mapping[str, Any]:
        """What only the driver knows, for people; plain values by name. `ops`: what serves each op, and why not others
        (`llmos.drivers.ops.catalog.serving`)."""
        raise NotSupported(f"this device tells nothing about {topic!r}", why="inspect is not implemented by the driver")

    def open_context(self, context: str, model: str, parent: str, max_tokens: int) -> OpenedContext:
        """Start a conversation, from `parent` if that is not empty. Raises NotFound, BadState."""
        raise NotSupported("this device keeps no conversations", why="open_context is not implemented by the driver")

    def drop_context(self, context: str) -> int:
        """Forget a conversation; returns bytes freed."""
        raise NotFound(f"no context {context}")

    def lease(self, lease: str, bytes: int, path: str) -> Leased:
        """Allocate bytes that another program can map, until `end_lease`. Memory that is files makes one at `path`, for
        this user alone. Raises NoDeviceMemory, Exists."""
        why = "lease is not implemented by the driver"
        raise NotSupported(f"this device shares no bytes with other programs: {lease} gets none", why=why)

    def end_lease(self, lease: str) -> int:
        """Free them; returns how many bytes. Raises NotFound."""
        raise NotFound(f"no lease {lease}")

    def plan_tune(self, job: TuneJob) -> TunePlan | None:
        """What a job would take, without allocating; None where it takes a while to find out: then steps go on beside
        requests until a TunePlannedEvent or a FailedEvent says it. Raises NotFound, BadArgument, NotSupported."""
        raise NotSupported(f"this device cannot tune {job.model}", why="tune is not implemented by the driver")

    def tune(self, job: TuneJob) -> TunePlan:
        """Begin a job, to be advanced by `step` beside the requests until a TuneDoneEvent or FailedEvent ends it;
        `cancel` ends it too. Raises before any work: as `plan_tune`, Exists, BadState, NoDeviceMemory."""
        raise NotSupported(f"this device cannot tune {job.model}", why="tune is not implemented by the driver")

    def pause_tune(self, job: str) -> None:
        """Keep a job where it is, and its memory, until `resume_tune` or `cancel`. Raises NotFound."""
        raise NotFound(f"no job {job}")

    def resume_tune(self, job: str) -> None:
        """Let a job go on. Raises NotFound."""
        raise NotFound(f"no job {job}")

    def checkpoint_tune(self, job: str) -> None:
        """Have a checkpoint written soon; a TuneProgressEvent of stage checkpoint says that it is. Raises NotFound."""
        raise NotFound(f"no job {job}")


@dataclass(frozen=True)
class FileInfo:
    """One name of a file system; `path` is absolute inside it and `kind` is file, folder or model."""

    path: str
    kind: str
    bytes: int = 0
    version: str = ""
    mtime: float = 0.0
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A search hit; `reason` says why it ranks where it does."""

    path: str
    score: float
    start: int = 0
    end: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


class OpenHandle(ABC):
    """An open file. What was written becomes visible at `close`, and not at all at `discard`."""

    bytes: int
    version: str

    @abstractmethod
    def read(self, offset: int, count: int) -> builtins.bytes:
        """Up to `count` bytes; fewer only at the end."""

    def write(self, offset: int, data: builtins.bytes | memoryview) -> int:
        """Write at `offset`; returns how many bytes. Raises NoSpace."""
        raise NotSupported("this file cannot be written", why="opened for reading")

    @abstractmethod
    def close(self) -> str:
        """Finish and return the version."""

    def discard(self) -> None:
        """Drop what was written."""


class FileSystem(ABC):
    """One mounted tree. Paths are absolute inside it (`/`, `/org/name`) and normalised: no `..` ever arrives."""

    progress: ProgressSink | None = None
    """Set by the host; called every few seconds of long work such as hashing, as the sign of life."""

    @abstractmethod
    def open(self, path: str, mode: str, expected_version: str | None = None) -> OpenHandle:
        """Mode r, w, a or x. Raises NotFound, Exists, NotDirectory, ReadOnly, Conflict."""

    @abstractmethod
    def list(self, path: str, after: str = "") -> Sequence[FileInfo]:
        """Entries of a folder in order of path, at most 1000 after `after`. Raises NotFound, NotDirectory."""

    @abstractmethod
    def stat(self, path: str) -> FileInfo:
        """One entry. Raises NotFound."""

    @abstractmethod
    def locate(self, path: str, version: str = "") -> tuple[str, ModelSource]:
        """The files behind a path, checked, and a token that keeps them until `release`. Raises NotFound, BadModel."""

    def release(self, token: str) -> None:
        """The located files are no longer needed."""

    def remove(self, path: str) -> None:
        """Remove a file, object or empty folder. Raises NotFound, Busy, ReadOnly."""
        raise NotSupported(f"{path} cannot be removed here", why="remove is not implemented by the driver")

    def search(self, path: str, query: str, filters: Mapping[str, Any], limit: int) -> Sequence[Found]:
        """Best hits first."""
        raise NotSupported(f"{path} cannot be searched", why="search is not implemented by the driver")

    def stage(self, path: str) -> tuple[str, Path]:
        """A token and an empty folder for a result."""
        raise NotSupported(f"nothing can be stored at {path}", why="stage is not implemented by the driver")

    def commit(self, token: str, manifest: Mapping[str, Any], expected_version: str | None = None) -> str:
        """Publish a staged folder as a new version; returns the version. Raises Conflict, BadModel."""
        raise NotSupported("nothing can be stored here", why="commit is not implemented by the driver")

    def bring(
        self, path: str, sources: Sequence[ModelSource | str], recipe: Mapping[str, Any], progress: ProgressSink
    ) -> Mapping[str, Any]:
        """Store what comes from elsewhere: located files, or URLs that the driver fetches. Whole or not at all.

        Called in a process of its own, which may be killed at any moment. `recipe` has kind, format and options; the
        answer has at least `version`, `bytes` and `files`. Raises BadModel, Exists, NotFound, NoSpace, Unavailable.
        """
        raise NotSupported(f"nothing can be brought to {path}", why="bring is not implemented by the driver")

    def send(self, path: str, target: str, recipe: Mapping[str, Any], progress: ProgressSink) -> Mapping[str, Any]:
        """Copy what lies at `path` to the URL `target`, in a process of its own as `bring`. Raises like it."""
        raise NotSupported(f"{path} cannot be sent anywhere", why="send is not implemented by the driver")

    def control(self, action: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """alias, rollback, fsck, gc. Raises NotFound, NotSupported."""
        raise NotSupported(f"this file system has no action {action}", why="control is not implemented by the driver")


DeviceFactory = Callable[[], Device]
FileSystemFactory = Callable[[str, Mapping[str, Any]], FileSystem]
"""Builds the file system of one source (a folder, an address) with the driver's configuration."""
