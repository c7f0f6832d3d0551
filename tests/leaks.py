"""Finds what a test leaves behind: processes, threads, open descriptors, and files in temporary and shared memory.

Each detector returns what exists now, as a map from an identity to a description; a leak is what a later look shows in
addition. Loaded as a plug-in by `conftest.py`, so that it watches every test.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MARK = "LLMOS_TEST_RUN"
"""Environment variable that every descendant of this test process inherits, so that orphans are recognised."""

PATIENCE_S = float(os.environ.get("LLMOS_LEAK_PATIENCE", "5"))
"""How long what is ending may take to end; waited for only when something is left."""

# Helpers of libraries that live as long as the process and have no way to be closed.
_LASTING_THREADS = ("pytest_timeout", "tqdm", "ThreadPoolExecutor-torch", "zmq.utils.garbage", "GarbageCollectorThread")
_LASTING_PROCESSES = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
_LASTING_DESCRIPTORS = ("/dev/null", "/dev/urandom", "/dev/random")

Seen = dict[str, str]


def processes() -> Seen:
    """Children of this process, and orphans that it or they once started."""
    pids = set[str]()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            pids.update((task / "children").read_text().split())
    pids.update(pid for pid, _ in running() - strangers() if pid not in pids and _is_ours(pid))
    found = {pid: _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace") for pid in pids}
    return {pid: line for pid, line in found.items() if not any(name in line for name in _LASTING_PROCESSES)}


def running() -> frozenset[tuple[str, int]]:
    """All processes: their ids, and the inodes that tell them from others that have the same ids later."""
    with os.scandir("/proc") as entries:
        return frozenset((entry.name, entry.inode()) for entry in entries if entry.name.isdigit())


@functools.cache
def strangers() -> frozenset[tuple[str, int]]:
    """Processes that were there before this run, itself among them: none of these was started by it."""
    return running()


def _is_ours(pid: str) -> bool:
    return f"{MARK}={os.environ.get(MARK, 'none')}".encode() in _read(f"/proc/{pid}/environ").split(b"\0")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # it ended meanwhile, or belongs to another user
        return b""


def threads() -> Seen:
    """Threads of this process that Python knows."""
    alive = [t for t in threading.enumerate() if not t.name.startswith(_LASTING_THREADS)]
    return {f"{t.ident}": f"{t.name} {'(daemon)' if t.daemon else ''}" for t in alive}


def descriptors() -> Seen:
    """Open file descriptors of this process."""
    found = Seen()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the folder
            target = str(link.readlink())
            if target not in _LASTING_DESCRIPTORS:
                found[f"{link.name} {target}"] = target
    return found


def below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, also while others make and remove some."""
    return (Path(inside) / name for inside, _, names in os.walk(folder) for name in names)


def files() -> Seen:
    """Entries of the temporary folder, sockets below it, and buffers of kernels; both folders are this run's own."""
    temporary = Path(tempfile.gettempdir())
    found = [*temporary.iterdir(), *(path for path in below(temporary) if path.is_socket())]
    if buffers := os.environ.get("LLMOS_SHM_DIR"):
        found += Path(buffers).iterdir()
    return {str(path): "socket" if path.is_socket() else "file or folder" for path in found}


DETECTORS: dict[str, Callable[[], Seen]] = {
    "process": processes,
    "thread": threads,
    "descriptor": descriptors,
    "file": files,
}


def look() -> dict[str, Seen]:
    """What exists now, by detector."""
    return {name: detect() for name, detect in DETECTORS.items()}


def left_since(before: dict[str, Seen], patience: float = PATIENCE_S) -> list[str]:
    """What exists now and did not before, one line each; what is about to end is given time to."""
    deadline = time.monotonic() + patience
    left = _new_since(before)
    while left and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
        now = _new_since(before)
        left = [line for line in left if line in now]
    return left


def _new_since(before: dict[str, Seen]) -> list[str]:
    return [
        f"{name} {identity}: {text}"
        for name, seen in before.items()
        for identity, text in DETECTORS[name]().items()
        if identity not in seen
    ]


@pytest.fixture(scope="session", autouse=True)
def nothing_left_by_all() -> Iterator[None]:
    """The same for fixtures that several tests share."""
    before = {name: DETECTORS[name]() for name in ("process", "file")}
    yield
    assert not (left := left_since(before)), "the tests left behind:\n" + "\n".join(left)


@pytest.fixture(autouse=True)
def nothing_left(nothing_left_by_all: None) -> Iterator[None]:
    """Fail a test that leaves something behind."""
    before = look()
    yield
    assert not (left := left_since(before)), "the test left behind:\n" + "\n".join(left)


def pytest_configure() -> None:
    os.environ[MARK] = uuid.uuid4().hex
    strangers()
