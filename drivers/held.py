"""What a host keeps of its device's models and requests, for `device_calls`."""

from __future__ import annotations

from dataclasses import dataclass

from llmos.syscalls.driver import Located

from . import contract


@dataclass
class Held:
    """A model on the device. `key` is the device's own id of it."""

    key: str
    version: str
    bytes: int
    loaded: contract.LoadedModel
    base: str = ""
    """Of an adapter: the id of its model."""


@dataclass
class Running:
    """A request on the device and the call it answers."""

    number: int
    held: Held
    stream: bool
    tokens: int = 0


@dataclass
class Limits:
    """Seconds that kinds of calls may take at least, before the size of their work is added."""

    step: float
    load: float


@dataclass
class Counters:
    """Of a host since it started."""

    requests: int = 0
    tokens: int = 0
    device_ns: int = 0


def bytes_of(located: Located) -> int:
    """Of a model's files and its draft model's."""
    every = (located, located.draft)
    return sum(file.bytes for each in every if each is not None for file in each.files)
