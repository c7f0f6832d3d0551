"""Work that is not visible yet: folders in the private part of a tree, on its disk, so that a rename publishes them.

Each folder has a lock file that its owner holds while it lives. What a killed process left behind is found by its lock
being free, and swept at the next start.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from .locks import tree_lock, try_lock
from .paths import PRIVATE

AREA = "scratch"


class Slot:
    """One scratch folder of a live owner."""

    def __init__(self, area: Path, id: str, lock: int) -> None:
        self.id = id
        self.folder = area / id
        self._lock_file = area / f"{id}.lock"
        self._lock = lock

    def close(self) -> None:
        """Remove the folder with all that is still in it. What cannot be removed is tried again by the next sweep."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if not self.folder.exists():
            self._lock_file.unlink(missing_ok=True)
        os.close(self._lock)


class Scratch:
    """The scratch folders of one tree. Nothing is written to the tree before the first `take`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._area = root / PRIVATE / AREA

    def take(self) -> Slot:
        """A new empty folder. Raises OSError."""
        id = uuid.uuid4().hex
        # The lock of the tree keeps a sweep away while the new lock file exists and is not locked yet.
        with tree_lock(self._root):
            self._area.mkdir(exist_ok=True)
            lock_file = self._area / f"{id}.lock"
            lock_file.touch(0o600)
            lock = try_lock(lock_file, exclusive=True)
            assert lock is not None
            (self._area / id).mkdir()
        return Slot(self._area, id, lock)

    def sweep(self) -> int:
        """Remove the folders whose owners are gone; returns how many. Raises OSError if the tree cannot be written."""
        if not self._area.is_dir():
            return 0
        with tree_lock(self._root):
            stale = [slot for file in self._area.glob("*.lock") if (slot := self._abandoned(file)) is not None]
        for slot in stale:
            slot.close()
        return len(stale)

    def _abandoned(self, lock_file: Path) -> Slot | None:
        try:
            lock = try_lock(lock_file, exclusive=True)
        except FileNotFoundError:
            return None  # its owner has just finished
        return None if lock is None else Slot(self._area, lock_file.stem, lock)
