"""What was fetched so far of something large: kept between jobs, so that an interrupted download goes on.

Each source has a folder of its own in the private part of the tree, named after the source and its version, so what is
in it never changes its meaning. One job at a time fills it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmos.drivers.contract import ProgressSink

from ...locks import try_lock
from ...paths import PRIVATE, sync_folder

AREA = "partial"
KEPT_S = 7 * 86400.0
"""What nobody went on with for so long is swept."""
ASK_S = 0.2


@contextmanager
def partial(root: Path, source: str, progress: ProgressSink) -> Iterator[Path]:
    """The folder of what was fetched of a source, locked; another job that fills it is waited for. Raises OSError."""
    folder = root / PRIVATE / AREA / hashlib.sha256(source.encode()).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _locked(lock):
            progress(0, 0, "bytes", "waiting for another job")
            time.sleep(ASK_S)
        folder.mkdir(parents=True, exist_ok=True)  # the other job may have finished and removed it
        (folder / ".source.json").write_text(json.dumps({"source": source}))
        yield folder
    finally:
        os.close(lock)


def finished(folder: Path) -> None:
    """Remove a folder whose files were moved away."""
    shutil.rmtree(folder, ignore_errors=True)
    sync_folder(folder.parent)


def sweep(root: Path, older_s: float = KEPT_S) -> int:
    """Remove what nobody fills and nobody went on with for so many seconds; the bytes freed."""
    area, freed = root / PRIVATE / AREA, 0
    for lock_file in sorted(area.glob("*.lock")):
        lock = try_lock(lock_file, exclusive=True)
        if lock is None:
            continue
        folder = lock_file.with_suffix("")
        files = [path for path in folder.rglob("*") if path.is_file()]
        newest = max((path.stat().st_mtime for path in (lock_file, *files)), default=0.0)
        if time.time() - newest >= older_s:
            freed += sum(path.stat().st_blocks * 512 for path in files)
            shutil.rmtree(folder, ignore_errors=True)
            lock_file.unlink()
        os.close(lock)
    return freed


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
