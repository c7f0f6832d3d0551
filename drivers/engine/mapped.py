"""Giving memory back while the weights of a model are moved: pages of mapped files, and what the heap has free.

The library maps a checkpoint and packing copies it, so that without this a model would be resident twice: once in pages
of its files, once in packed weights. Pages that are given back are read from the file again if somebody looks at them.
Weights of another dtype than the file's are in the heap, which keeps what is freed between things that stay.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLACES = Path("/proc/self/maps")
MAPPINGS = Path("/proc/self/smaps")
"""The same places with what is in memory of each, which takes far longer to tell."""
STATUS = Path("/proc/self/status")
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ +(/.*)")
DONTNEED = 4
"""MADV_DONTNEED of Linux's madvise(2)."""
MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of glibc's mallopt(3)."""

FILES, HEAP = "RssFile:", "RssAnon:"
STEP = 16 << 20
"""Bytes that may become resident before something is given back."""

WATCH_S = 0.005
"""Seconds between two looks at what a block of code that cannot be interrupted has read."""


class FilePages:
    """The pages of some files that this process has mapped."""

    def __init__(self, files: Collection[Path]) -> None:
        self._files = {str(file.resolve()) for file in files}
        self._resident, self._heap = resident_bytes(FILES), resident_bytes(HEAP)
        self._known: Collection[tuple[int, int]] | None = None
        """Where something was written, as long as nothing is."""

    def trim(self) -> None:
        """Give them back once they are many; what is free in the heap too."""
        if resident_bytes(FILES) > self._resident + STEP:
            self.drop()
        if resident_bytes(HEAP) > self._heap + STEP:
            trim_heap()
            self._heap = resident_bytes(HEAP)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Give them back meanwhile, for code that reads much in one call; none may be written to in it."""
        ended, self._known = threading.Event(), _written(self._files)
        watch = threading.Thread(target=self._watch, args=(ended,), name="file pages")
        watch.start()
        try:
            yield
        finally:
            ended.set()
            watch.join()
            self._known = None
            self.drop()

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(WATCH_S):
            if resident_bytes(FILES) > self._resident + STEP:
                self.drop()

    def drop(self) -> None:
        """Give all back but those of mappings that were written to, whose content is nowhere else."""
        written = _written(self._files) if self._known is None else self._known
        for start, end in _places(self._files):
            if not any(first < end and start < last for first, last in written):
                forget(start, end - start)
        self._resident = resident_bytes(FILES)


def trim_heap() -> None:
    """Give back what the heap has free between things that stay."""
    _advise("malloc_trim", ctypes.c_size_t(0))


def keep_apart(size: int) -> None:
    """From now on blocks of so many bytes or more come from the system, and go back to it when they are free.

    By itself the heap raises this bound to what was freed last, 32 MiB at most, and keeps what is below in pieces.
    """
    _advise("mallopt", ctypes.c_int(MMAP_THRESHOLD), ctypes.c_int(size))


def forget(start: int, count: int) -> None:
    """Give whole pages of memory back: those of a file are read again if somebody looks, others are zeros then."""
    _advise("madvise", ctypes.c_void_p(start), ctypes.c_size_t(count), ctypes.c_int(DONTNEED))


def resident_bytes(kind: str) -> int:
    """Bytes of `FILES` or `HEAP` that are resident in this process; 0 where the system does not tell."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(kind)), 0)


def _places(files: Collection[str]) -> list[tuple[int, int]]:
    """Where these files are mapped, begin and end."""
    found = (MAPPING.fullmatch(line) for line in _lines(PLACES))
    return [(int(place[1], 16), int(place[2], 16)) for place in found if place is not None and place[3] in files]


def _written(files: Collection[str]) -> list[tuple[int, int]]:
    """Those places of them where something was written."""
    return [(each.start, each.end) for each in mappings() if each.written and each.file in files]


@dataclass
class Mapping:
    """A part of a file that this process has mapped; `written`: some of it is not as in the file."""

    start: int
    end: int
    file: str
    written: bool = False


def mappings() -> list[Mapping]:
    """All mapped files."""
    found: list[Mapping] = []
    place: Mapping | None = None
    for line in _lines(MAPPINGS):
        mapping = MAPPING.fullmatch(line)
        if mapping is not None:
            place = Mapping(int(mapping[1], 16), int(mapping[2], 16), mapping[3])
            found.append(place)
        elif line[:1].islower() or line[:1].isdigit():
            place = None  # a mapping without a file
        elif place is not None and line.startswith("Anonymous:"):
            place.written = line.split()[1] != "0"
    return found


def _lines(file: Path) -> list[str]:
    """Of a file of the system; none where there is no such file."""
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _advise(function: str, *given: Any) -> None:
    """Call the C library. Advice that is not taken, or not known there, costs memory and nothing else."""
    known = getattr(ctypes.CDLL(None), function, None)
    if known is not None:
        known(*given)
