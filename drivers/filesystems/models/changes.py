"""A log of which models of a tree changed, so that an index need not look at all of them to stay true.

One line of JSON per change, appended after it with the lock of the tree held. It is a hint: losing it costs a look at
everything. It is replaced by an empty one when it has grown large; readers see that by its inode.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..paths import PRIVATE, replace_file

LOG = "changes"
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a log was read."""

    inode: int = 0
    offset: int = 0

    @classmethod
    def parse(cls, text: str) -> Mark:
        """What `str` gave; the beginning for anything else."""
        inode, _, offset = text.partition(":")
        return cls(int(inode), int(offset)) if inode.isdecimal() and offset.isdecimal() else cls()

    def __str__(self) -> str:
        return f"{self.inode}:{self.offset}"


def note(root: Path, path: str) -> None:
    """Append the path of a model that has just changed. Where that fails, the change is found by looking."""
    log = root / PRIVATE / LOG
    with suppress(OSError):
        with log.open("ab") as file:
            file.write(json.dumps(path).encode() + b"\n")
            size = file.tell()
        if size > MAX_BYTES:
            replace_file(log, b"", durable=False)


def since(root: Path, mark: Mark) -> tuple[list[str] | None, Mark]:
    """The paths noted after a mark, and the new mark; None when the log is another one, so anything may have changed.

    The mark of a log that did not exist is its beginning.

    Raises OSError when the log cannot be read; a log that does not exist has nothing in it.
    """
    try:
        descriptor = os.open(root / PRIVATE / LOG, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ([] if mark == Mark() else None), Mark()
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if status.st_ino == mark.inode and status.st_size == mark.offset:
            return [], mark
        same = mark == Mark() or (status.st_ino == mark.inode and status.st_size > mark.offset)
        file.seek(mark.offset if same else 0)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    read = (mark.offset if same else 0) + len(whole)
    return ([*_paths(whole)] if same else None), Mark(status.st_ino, read)


def _paths(data: bytes) -> Iterator[str]:
    for line in data.splitlines():
        try:
            path = json.loads(line)
        except ValueError:
            continue  # a line that was cut by a full disk
        if isinstance(path, str):
            yield path
