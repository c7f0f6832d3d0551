"""Advisory locks between processes, held by open descriptors: the operating system drops them when a process dies.

See flock(2): a lock belongs to the open file, so two descriptors exclude each other within one process as well.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .paths import PRIVATE


def try_lock(path: Path, exclusive: bool) -> int | None:
    """A descriptor that locks an existing file, or None when another one is in the way. Close it to unlock."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def locked_folder(descriptor: int) -> Iterator[None]:
    """Wait for and hold the exclusive lock of an open folder."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def tree_lock(root: Path) -> Iterator[None]:
    """Wait for and hold the one lock of a tree; for short changes only. Makes the tree's private folder."""
    private = root / PRIVATE
    private.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(private / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with locked_folder(descriptor):
            yield
    finally:
        os.close(descriptor)
