"""What hosts answer to calls of the kernel."""

from __future__ import annotations

from typing import Annotated, Any

from .types import LedgerRow, Value


class LeaseGiven(Value):
    """Bytes of a device that another program may use."""

    kind: Annotated[str, "reservation, shm or cuda-ipc"]
    handle: bytes = b""
    """cuda-ipc: what CUDA opens."""
    path: str = ""
    """shm: the file to map."""


class Tuning(Value):
    """What a tuning job takes: rows of `what="tuning"`, optimizer steps, and tokens in all; `facts` are for people and
    for the record of the run."""

    rows: list[LedgerRow]
    steps: int
    tokens: int
    facts: dict[str, Any] = {}


class ContextOpened(Value):
    tokens: int
    max_tokens: int
    bytes: int = 0


class Stats(Value):
    memory: list[LedgerRow] = []
    values: dict[str, float] = {}


class Opened(Value):
    token: str
    bytes: int
    version: str


class Version(Value):
    version: str


class Folder(Value):
    path: str
    token: str


class FsReport(Value):
    """What an action on a file system found or did."""

    fields: dict[str, Any] = {}


class Inspected(Value):
    """What a driver told of its device."""

    fields: dict[str, Any] = {}
