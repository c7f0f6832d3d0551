"""SHA-256 of files, computed once and remembered outside of the models' folders, which may be read-only.

One small file per hashed file, keyed by inode, as a file may have several names; it holds for as long as size, both
times and inode stay as they were. Losing the cache costs time only.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from llmos.drivers.contract import ProgressSink

from ..paths import replace_file
from .scan import ScannedFile

CHUNK = 8 << 20


def sha256_of(file: ScannedFile, progress: ProgressSink | None = None) -> str:
    """Read the whole file. Raises OSError."""
    digest = hashlib.sha256()
    done = 0
    with file.path.open("rb") as source:
        while block := source.read(CHUNK):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, file.bytes, "bytes", f"verify {file.name}")
    return digest.hexdigest()


class HashCache:
    """Remembered hashes below a folder that is made when the first one is stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def known(self, file: ScannedFile) -> str | None:
        """The hash of a file that has not changed since it was read, or None."""
        try:
            entry = json.loads(self._entry(file).read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(entry, dict) or entry.get("stamp") != [*file.stamp]:
            return None
        digest = entry.get("sha256")
        return digest if isinstance(digest, str) else None

    def digest(self, file: ScannedFile, progress: ProgressSink | None = None) -> str:
        """The hash of a file, read only if it is not known. Raises OSError when the file cannot be read."""
        known = self.known(file)
        if known is not None:
            return known
        digest = sha256_of(file, progress)
        self.remember(file, digest)
        return digest

    def remember(self, file: ScannedFile, digest: str) -> None:
        """Store the hash of a file that had this stamp when reading began. Failing to store it is no error."""
        entry = self._entry(file)
        content = {"path": str(file.path), "stamp": [*file.stamp], "sha256": digest}
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            replace_file(entry, json.dumps(content).encode(), durable=False)
        except OSError:
            return

    def prune(self) -> int:
        """Forget files that are gone; returns how many."""
        gone = [entry for entry in self.folder.glob("*.json") if not _names_a_file(entry)]
        for entry in gone:
            entry.unlink(missing_ok=True)
        return len(gone)

    def _entry(self, file: ScannedFile) -> Path:
        return self.folder / f"{file.stamp[3]:x}.json"


def _names_a_file(entry: Path) -> bool:
    try:
        return Path(json.loads(entry.read_bytes())["path"]).exists()
    except (OSError, ValueError, KeyError, TypeError):
        return False
