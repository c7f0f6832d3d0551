"""Handles, rights and kinds: what a session may do, and to what."""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

Handle = NewType("Handle", int)
"""A small integer, meaningful in one session, never reused. Holding it, with its rights, is the authority."""


class Right(StrEnum):
    """The nine rights; `docs/syscalls/rights.md` says what each means for each kind."""

    READ = "read"
    WRITE = "write"
    RUN = "run"
    CREATE = "create"
    LIST = "list"
    WAIT = "wait"
    DUP = "dup"
    GRANT = "grant"
    MANAGE = "manage"


Rights = frozenset[Right]

ALL_RIGHTS: Rights = frozenset(Right)


class Kind(StrEnum):
    """What a handle can name."""

    SESSION = "session"
    SYSTEM = "system"
    DEVICE = "device"
    DRIVER = "driver"
    MODEL = "model"
    CONTEXT = "context"
    LEASE = "lease"
    BUFFER = "buffer"
    FILE = "file"
    MOUNT = "mount"
    TASK = "task"


class WorkClass(StrEnum):
    """How urgent work is. The arbiter bounds how much a lower class may slow a higher one."""

    INTERACTIVE = "interactive"
    BATCH = "batch"
    BACKGROUND = "background"
