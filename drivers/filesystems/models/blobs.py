"""Content by its hash: each content of a store is on its disk once, however many versions have it.

`.llmos/blobs/ab/<sha256>` is a hard link to the same file as in the versions, so a version is an ordinary folder and
needs no lookup, and how many links a blob has says whether anybody needs it. Where the disk has no hard links every
version keeps its own copy.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..copying import copy
from ..paths import PRIVATE
from .hashes import HashCache
from .manifest import SHA256
from .scan import ScannedFile, scanned

FOLDER = "blobs"
READ_ONLY = 0o444
NO_LINKS = frozenset({errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES})
"""What a disk answers that has no hard links, or no more of them for this file."""


@dataclass(frozen=True)
class Adopted:
    """A file of a store as it is after that. `joined`: it is one with its blob; `shared`: with one that was there."""

    file: ScannedFile
    joined: bool
    shared: bool


class Blobs:
    """The blobs of one writable root."""

    def __init__(self, root: Path, hashes: HashCache) -> None:
        self._folder = root / PRIVATE / FOLDER
        self._hashes = hashes

    def path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def adopt(self, file: ScannedFile, sha256: str) -> Adopted:
        """Join a file that was read with the blob of its content; it is read-only afterwards. Raises OSError.

        A blob that is there is used instead of the file only if its own content is right.
        """
        blob = self.path(sha256)
        file.path.chmod(READ_ONLY)
        shared = False
        try:
            blob.parent.mkdir(parents=True, exist_ok=True)
            shared = self._join(file, blob, sha256)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        now = scanned(file.name, file.path)
        if not shared and not _same_content(file, now):
            now = replace(now, stamp=file.stamp)  # changed since it was read: its hash will not be believed
        joined = _is_same(blob, file.path)
        if joined:
            self._hashes.remember(replace(now, path=blob), sha256)
        return Adopted(now, joined, shared)

    def undo(self, adopted: Iterable[tuple[Adopted, str]]) -> None:
        """Take back the blobs of files that became no version after all: removing those files frees their space."""
        for each, sha256 in adopted:
            blob = self.path(sha256)
            if each.joined and not each.shared and _is_same(blob, each.file.path) and blob.stat().st_nlink == 2:
                blob.unlink()

    def restore(self, sha256: str, target: Path) -> None:
        """Put the content of a sound blob at a path, replacing what is there. Raises OSError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        part.unlink(missing_ok=True)
        try:
            os.link(self.path(sha256), part)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            _copy(self.path(sha256), part)
        part.replace(target)
        self.settle([(self.path(sha256), sha256)])

    def renew(self, sha256: str, sound: Path) -> bool:
        """Make the blob of a content again from a sound copy of it; whether that copy was still sound."""
        blob = self.path(sha256)
        blob.parent.mkdir(parents=True, exist_ok=True)
        part = blob.with_name(f".{sha256}.{os.getpid()}.part")
        part.unlink(missing_ok=True)
        if _copy(sound, part) != sha256:
            part.unlink()
            return False
        part.chmod(READ_ONLY)
        part.replace(blob)
        self.settle([(blob, sha256)])
        return True

    def settle(self, blobs: Iterable[tuple[Path, str]]) -> None:
        """Remember the hashes of files that are known to be sound: making or removing a link changed their stamp."""
        for path, sha256 in blobs:
            with suppress(FileNotFoundError):
                self._hashes.remember(scanned(sha256, path), sha256)

    def sound_shares(self, files: Iterable[ScannedFile]) -> list[tuple[Path, str]]:
        """The blobs of those files that others share too, whose hash is known: to be settled after a removal."""
        found = []
        for file in files:
            sha256 = self._hashes.known(file)
            if sha256 is not None and _is_same(self.path(sha256), file.path):
                found.append((self.path(sha256), sha256))
        return found

    def all(self) -> Iterator[Path]:
        """Every blob there is."""
        if self._folder.is_dir():
            for folder in sorted(self._folder.iterdir()):
                yield from sorted(path for path in folder.iterdir() if SHA256.fullmatch(path.name))

    def collect(self) -> tuple[int, int]:
        """Remove the blobs that no version and no staged folder has; how many, and their bytes."""
        count = size = 0
        for path in self.all():
            with suppress(FileNotFoundError):
                status = path.stat()
                if status.st_nlink == 1:
                    path.unlink()
                    count, size = count + 1, size + status.st_size
        return count, size

    def _join(self, file: ScannedFile, blob: Path, sha256: str) -> bool:
        """Whether the file now has the content of a blob that was there."""
        try:
            os.link(file.path, blob)
        except FileExistsError:
            pass
        else:
            return False
        if _is_same(blob, file.path):
            return False
        part = file.path.with_name(f".{file.path.name}.{os.getpid()}.part")
        if not self._is_sound(blob, file.bytes, sha256):
            os.link(file.path, part)
            part.replace(blob)
            return False
        os.link(blob, part)
        part.replace(file.path)
        return True

    def _is_sound(self, blob: Path, size: int, sha256: str) -> bool:
        found = scanned(sha256, blob)
        return found.bytes == size and self._hashes.digest(found) == sha256


def _copy(source: Path, target: Path) -> str:
    with source.open("rb") as opened:
        return copy(opened.fileno(), target, lambda _count: None)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


def _same_content(before: ScannedFile, now: ScannedFile) -> bool:
    """Whether size, time of change and inode are as they were; a new link changes only the fourth figure, ctime."""
    return before.stamp[:2] == now.stamp[:2] and before.stamp[3] == now.stamp[3]
