"""What a driver's process reports by itself: `ready`, `beat` and the other events of the kernel-host interface."""

from __future__ import annotations

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
    work_class: str
    tenant: str
    device_ns: int
    tokens: int
    bytes: int = 0


class Memory(Value, tag_field="event", tag="memory"):
    """All rows of the device as the driver sees them."""

    device: str
    rows: list[LedgerRow]
    foreign_bytes: int = 0


class Fault(Value, tag_field="event", tag="fault"):
    """The driver failed; a sticky fault means that the process ends now."""

    text: str
    sticky: bool = True


HostEvent = Ready | Beat | MetricEvent | Capacity | Spent | Memory | Fault
