"""Tensors of the CPU that sleep in a file: they keep their addresses, and the system takes the memory behind them.

What lies in unchanged pages of a mapped file is only let go of; the rest is written to a file without a name first, and
read back to where it was. So everything that was made for these addresses stays: modules, views, packed weights, what
was tried and found fast. The file is written through to the disk before memory is given back: what sleeps costs none.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from torch import Tensor

from .mapped import Mapping, forget, mappings

LEAST = 64 << 10
"""Bytes of a storage that are worth the trouble."""
CHUNK = 16 << 20
FILESYSTEMS = Path("/proc/self/mounts")
IN_MEMORY = ("tmpfs", "ramfs")


@dataclass(frozen=True)
class Span:
    """Whole pages of memory, and where in the file their content is."""

    address: int
    count: int
    at: int = 0

    def chunks(self) -> Iterator[tuple[memoryview, int]]:
        """Pieces of the memory, each with its place in the file."""
        for start in range(0, self.count, CHUNK):
            count = min(CHUNK, self.count - start)
            yield memoryview((ctypes.c_char * count).from_address(self.address + start)).cast("B"), self.at + start

    def forget(self) -> None:
        forget(self.address, self.count)


class Filed:
    """Tensors that sleep, and the file with what is nowhere else."""

    def __init__(self, file: int, spans: Sequence[Span], in_memory: bool) -> None:
        self._file, self._spans = file, spans
        self._close = weakref.finalize(self, os.close, file)
        self._bytes = sum(span.count for span in spans)
        self.host_bytes = self._bytes if in_memory else 0

    def wake(self, report: Callable[[int, int], None]) -> str:
        """Read everything back; no address has changed. Raises OSError when the disk fails."""
        done = 0
        for span in self._spans:
            for piece, at in span.chunks():
                _read(self._file, piece, at)
                done += len(piece)
                report(done, self._bytes)
        self._close()
        return ""


def put(kept: Iterable[Tensor], dropped: Iterable[Tensor], folder: Path | None = None) -> Filed | None:
    """Give back the memory of tensors; the content of `dropped` is lost, that of `kept` is not.

    None, with nothing changed, where the file cannot be written or tensors are packed by a library that keeps its own
    memory. A part of the first and the last page of each stays in memory.
    """
    tensors = list(kept)
    if any(tensor.is_mkldnn for tensor in tensors):
        return None
    place = rest_folder() if folder is None else folder
    known = mappings()
    whole = list(_spans(tensors))
    spans, end = [], 0
    for span in whole:
        if not _unchanged(span, known):
            spans.append(Span(span.address, span.count, end))
            end += span.count
    try:
        file, name = tempfile.mkstemp(prefix="asleep-", dir=place)
    except OSError:
        return None
    try:
        Path(name).unlink()
        for span in spans:
            for piece, at in span.chunks():
                _write(file, piece, at)
        os.fdatasync(file)
    except OSError:
        os.close(file)
        return None
    for span in (*whole, *_spans(dropped)):
        span.forget()
    return Filed(file, spans, in_memory(place))


def rest_folder() -> Path:
    """`cache` of the home folder where the kernel names one, else the folder for what is temporary."""
    home = os.environ.get("LLMOS_HOME")
    if not home:
        return Path(tempfile.gettempdir())
    folder = Path(home) / "cache"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def in_memory(folder: Path) -> bool:
    """Whether the files of a folder are memory themselves."""
    path, found = folder.resolve(), (0, "")
    for line in FILESYSTEMS.read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if path.is_relative_to(mount):
            found = max(found, (len(mount), kind))
    return found[1] in IN_MEMORY


def _spans(tensors: Iterable[Tensor]) -> Iterator[Span]:
    """The whole pages in the storages of tensors; a storage that several share comes once."""
    storages = {storage.data_ptr(): storage.nbytes() for storage in (each.untyped_storage() for each in tensors)}
    for start, count in storages.items():
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (start + count) // mmap.PAGESIZE * mmap.PAGESIZE
        if count >= LEAST:
            yield Span(first, last - first)


def _unchanged(span: Span, known: Sequence[Mapping]) -> bool:
    """Whether it lies in a mapped file, as it is there."""
    inside = (each for each in known if each.start <= span.address and span.address + span.count <= each.end)
    return any(not each.written for each in inside)


def _write(descriptor: int, piece: memoryview, at: int) -> None:
    done = 0
    while done < len(piece):
        done += os.pwrite(descriptor, piece[done:], at + done)


def _read(descriptor: int, piece: memoryview, at: int) -> None:
    done = 0
    while done < len(piece):
        count = os.preadv(descriptor, [piece[done:]], at + done)
        if not count:
            raise OSError(f"the file of tensors that sleep ends at {at + done}")
        done += count
