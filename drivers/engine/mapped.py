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
from pathlib import Path
from typing import Any

MAPPINGS = Path("/proc/self/smaps")
STATUS = Path("/proc/self/status")
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ +(/.*)")
DONTNEED = 4
"""MADV_DONTNEED of Linux's madvise(2)."""

FILES, HEAP = "RssFile:", "RssAnon:"
STEP = 32 << 20
"""Bytes that may become resident before something is given back."""

WATCH_S = 0.005
"""Seconds between two looks at what a block of code that cannot be interrupted has read."""


class FilePages:
    """The pages of some files that this process has mapped."""

    def __init__(self, files: Collection[Path]) -> None:
        self._files = {str(file.resolve()) for file in files}
        self._resident, self._heap = resident_bytes(FILES), resident_bytes(HEAP)

    def trim(self) -> None:
        """Give them back once they are many; what is free in the heap too."""
        if resident_bytes(FILES) > self._resident + STEP:
            self.drop()
        if resident_bytes(HEAP) > self._heap + STEP:
            _advise("malloc_trim", ctypes.c_size_t(0))
            self._heap = resident_bytes(HEAP)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Give them back meanwhile, for code that reads much in one call; none may be written to in it."""
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(ended,), name="file pages")
        watch.start()
        try:
            yield
        finally:
            ended.set()
            watch.join()
            self.drop()

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(WATCH_S):
            if resident_bytes(FILES) > self._resident + STEP:
                self.drop()

    def drop(self) -> None:
        """Give all back but those of mappings that were written to, whose content is nowhere else."""
        for start, end in _clean(self._files):
            forget(start, end - start)
        self._resident = resident_bytes(FILES)


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


def _clean(files: Collection[str]) -> list[tuple[int, int]]:
    """Where these files are mapped, begin and end, if nothing was written there."""
    try:
        lines = MAPPINGS.read_text().splitlines()
    except OSError:
        return []
    found: list[tuple[int, int]] = []
    place: tuple[int, int] | None = None
    for line in lines:
        mapping = MAPPING.fullmatch(line)
        if mapping is not None:
            place = (int(mapping[1], 16), int(mapping[2], 16)) if mapping[3] in files else None
        elif line[:1].islower() or line[:1].isdigit():
            place = None  # a mapping without a file
        elif place is not None and line.startswith("Anonymous:") and line.split()[1] == "0":
            found.append(place)
    return found


def _advise(function: str, *given: Any) -> None:
    """Call the C library. Advice that is not taken, or not known there, costs memory and nothing else."""
    known = getattr(ctypes.CDLL(None), function, None)
    if known is not None:
        known(*given)
