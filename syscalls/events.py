"""What a driver's process reports by itself: `ready`, `beat` and the other events of the kernel-host interface."""

from __future__ import annotations

from typing import Any

from .types import LedgerRow, Number, Value

VERSION = 1
"""Of the kernel-host interface."""


class DeviceFacts(Value):
    """What a device is; `memory_bytes` is all it could give to models."""

    name: str
    kind: str
    memory_bytes: int
    foreign_bytes: int = 0
    description: str = ""
    features: dict[str, Number] = {}
    pool: str = ""
    """A memory that several devices take from, counted once; `host` is the machine's own."""
    unit: str = ""
    """What computes, when several devices are parts of it and share its time."""


class Ready(Value, tag_field="event", tag="ready"):
    """The driver works. A device host reports one device, a filesystem host none."""

    devices: list[DeviceFacts] = []
    version: int = VERSION
    filesystem: str = ""


class Beat(Value, tag_field="event", tag="beat"):
    """Sign of life of the *work loop*: what it does and how long that may take before it counts as stuck."""

    seq: int
    steps: int
    busy_with: str = ""
    may_take_s: float = 3.0


class MetricEvent(Value, tag_field="event", tag="metric"):
    """Figures of a device, or of a model by the id of its weights: of that only `CACHE_USAGE`."""

    about: str
    values: dict[str, float]


CACHE_USAGE = "cache_usage"
"""Share of a model's cache of keys and values that requests hold, 0 to 1."""


class Capacity(Value, tag_field="event", tag="capacity"):
    model: str
    slots: int
    running: int = 0
    free_pages: int = 0
    queue: int = 0


class Spent(Value, tag_field="event", tag="spent"):
    """What a request took since the last such report: before its answer, and once a second while it runs."""

    work_class: str
    tenant: str
    device_ns: int
    tokens: int
    bytes: int = 0
    model: str = ""
    request: str = ""


class Memory(Value, tag_field="event", tag="memory"):
    """All rows of the device as the driver sees them, and of its models those on the device `host`."""

    device: str
    rows: list[LedgerRow]
    foreign_bytes: int = 0


class Overrun(Value, tag_field="event", tag="overrun"):
    """The device ran out of memory while a request ran on the model: its plan was too small by the difference."""

    model: str
    what: str
    predicted: int
    measured: int
    request: str = ""


class Fault(Value, tag_field="event", tag="fault"):
    """The driver failed; a sticky fault means that the process ends now."""

    text: str
    sticky: bool = True


class TuneProgress(Value, tag_field="event", tag="tune_progress"):
    """A tuning job has done `step` of `steps`; a stage `checkpoint` says that it would go on from here. `facts` replace
    those of the plan."""

    id: str
    step: int
    steps: int
    values: dict[str, float] = {}
    stage: str = "train"
    facts: dict[str, Any] = {}


class TuneEnded(Value, tag_field="event", tag="tune_ended"):
    """A tuning job is over: done (its result lies in its folder and `manifest` says what it is), cancelled or failed,
    which alone has an `error`."""

    id: str
    reason: str
    values: dict[str, float] = {}
    manifest: dict[str, Any] = {}
    error: dict[str, Any] | None = None


HostEvent = Ready | Beat | MetricEvent | Capacity | Spent | Memory | Overrun | Fault | TuneProgress | TuneEnded
