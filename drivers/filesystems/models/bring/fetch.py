"""Files fetched in ranges, several at a time; a journal beside each file says which ranges are there.

After a crash only the ranges that were under way are fetched again. Hashes are checked over the whole file in the end,
so what a power failure left half written is found too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from llmos.drivers.contract import ProgressSink
from llmos.syscalls.errors import NoSpace, Unavailable

from ...copying import CHUNK, sha256
from ..scan import bad
from .connections import on_connections
from .job import Meter
from .web import blocks

RANGE = 64 << 20
"""Bytes of a range; the journal knows every eighth of it."""
PIECE = RANGE // 8
TRIES = 5
PAUSE_S = 0.5


@dataclass(frozen=True)
class Remote:
    """A file to fetch. `git_sha1` is the id of a git blob, for where no SHA-256 is known."""

    name: str
    url: str
    bytes: int
    sha256: str = ""
    git_sha1: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Fetched:
    """The SHA-256 of each file, and how many bytes came over the network."""

    known: Mapping[str, str]
    bytes: int


@dataclass(frozen=True)
class _Range:
    file: Remote
    start: int
    end: int


def fetch(files: Sequence[Remote], folder: Path, progress: ProgressSink) -> Fetched:
    """Fetch what is missing of each file into a folder.

    Raises:
        BadModel: a file has another content than it should; it is removed, so the next try fetches it again.
        NoSpace: there is no room for the rest.
        Unavailable, NotFound, Denied: what the server said; what was fetched stays.
    """
    total = sum(file.bytes for file in files)
    here = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if total - here > free:
        raise NoSpace(f"{total - here} bytes are still to be fetched and {free} are free; make room and try again")
    missing = [part for file in files for part in _missing(file, folder)]
    left = sum(part.end - part.start for part in missing)
    meter = Meter(progress, total, "download")
    meter.add(total - left)
    on_connections(missing, lambda part, stop: _fetch(part, folder, meter, stop))
    checking = Meter(progress, total, "verify")
    known = {file.name: _verified(file, folder, checking) for file in files}
    return Fetched(known, left)


def move(files: Sequence[Remote], source: Path, target: Path) -> None:
    """Put whole files, which are safely on disk then, into another folder of the same disk. Raises OSError."""
    for file in files:
        (target / file.name).parent.mkdir(parents=True, exist_ok=True)
        with (source / file.name).open("rb") as opened:
            os.fsync(opened.fileno())
        (source / file.name).rename(target / file.name)


def _journal(folder: Path, file: Remote) -> Path:
    path = folder / file.name
    return path.with_name(f".{path.name}.ranges")


def _missing(file: Remote, folder: Path) -> Iterator[_Range]:
    """Ranges of a file that are to be fetched; the file is made, with room for all of it."""
    path, journal = folder / file.name, _journal(folder, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = journal.read_text().split() if journal.exists() and path.exists() else []
    if not known or path.stat().st_size != file.bytes:
        journal.unlink(missing_ok=True)
        with path.open("wb") as opened:
            opened.truncate(file.bytes)
        known = []
    there = {int(start) for start in known if start.isdecimal()}
    start = 0
    while start < file.bytes:
        end = start
        while end < file.bytes and end - start < RANGE and end not in there:
            end = min(end + PIECE, file.bytes)
        if end > start:
            yield _Range(file, start, end)
        start = end if end > start else start + PIECE


def _fetch(part: _Range, folder: Path, meter: Meter, stop: threading.Event) -> None:
    """One range, piece by piece; after a fault it goes on at the piece that was under way."""
    at, tries = part.start, 0
    while at < part.end and not stop.is_set():
        try:
            for done in _pieces(part, at, folder, meter, stop):
                at, tries = done, 0
        except Unavailable:
            tries += 1
            if tries >= TRIES or stop.wait(PAUSE_S * 2**tries):
                raise


def _pieces(part: _Range, at: int, folder: Path, meter: Meter, stop: threading.Event) -> Iterator[int]:
    """Write what comes; yields where each whole piece ended, after it was noted."""
    into = os.open(folder / part.file.name, os.O_WRONLY | os.O_CLOEXEC)
    journal = os.open(_journal(folder, part.file), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    begun = place = at
    try:
        with closing(blocks(part.file.url, part.file.headers, at, part.end)) as coming:
            for data in coming:
                os.pwrite(into, data, place)
                place += len(data)
                meter.add(len(data))
                while begun + PIECE <= place or (begun < place == part.end):
                    os.write(journal, f"{begun}\n".encode())
                    begun = min(begun + PIECE, part.end)
                    yield begun
                if stop.is_set():
                    return
    finally:
        meter.add(begun - place)  # what is fetched again does not count twice
        os.close(into)
        os.close(journal)


def _verified(file: Remote, folder: Path, meter: Meter) -> str:
    path = folder / file.name
    with path.open("rb") as opened:
        digest = sha256(opened.fileno(), meter.add)
        same = digest == file.sha256 if file.sha256 else _is_blob(path, file.git_sha1)
    if not same:
        path.unlink()
        _journal(folder, file).unlink(missing_ok=True)
        raise bad(file.name, "has not the content that its source promises; it was removed, so pull it again")
    return digest


def _is_blob(path: Path, git_sha1: str) -> bool:
    """Whether a file is the git blob of that id (gitformat-loose(5)); where there is no id, nothing is promised."""
    if not git_sha1:
        return True
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as opened:
        while data := opened.read(CHUNK):
            digest.update(data)
    return digest.hexdigest() == git_sha1
