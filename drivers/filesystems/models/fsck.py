"""Reading everything that is stored and comparing it with what was promised; and mending what has a sound copy.

A version's file and its blob are one file with two names, so damage inside it is in both. What can be mended: a file
that is missing or was replaced (from its blob), a blob that is (from a version), and any damage where the same content
lies in another file: of a version from before there were blobs, of a lower folder, of a plain model.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmos.drivers.contract import ProgressSink
from llmos.syscalls.errors import BadModel

from ..locks import tree_lock
from ..paths import file_errors
from .blobs import Blobs
from .derive import is_part
from .describe import Described, Describer, check
from .hashes import HashCache, sha256_of
from .indexing import Indexer
from .manifest import Listed, listed_files
from .scan import MANIFEST, ScannedFile, bad, scanned
from .store import Model, Store


@dataclass
class Report:
    """What was read, what is wrong and what was mended."""

    models: int = 0
    versions: int = 0
    files: int = 0
    bytes: int = 0
    blobs: int = 0
    problems: list[dict[str, str]] = field(default_factory=list)
    repaired: list[dict[str, str]] = field(default_factory=list)
    index: int = 0
    """Entries of the index that were wrong; it is always made anew."""

    def fields(self) -> dict[str, Any]:
        return {**vars(self), "ok": not self.problems}

    def problem(self, path: str, version: str, error: BadModel) -> None:
        self.problems.append({"path": path, "version": version, "file": error.file, "why": error.why})


class Fsck:
    """The check of one store. `read` is what was read in this run, so that a file with many names is read once."""

    def __init__(self, store: Store, describer: Describer, hashes: HashCache, blobs: Blobs, indexer: Indexer) -> None:
        self._store, self._describer, self._hashes = store, describer, hashes
        self._blobs, self._indexer = blobs, indexer

    def run(self, models: Iterable[Model], repair: bool, whole: bool, progress: ProgressSink | None) -> dict[str, Any]:
        """Check these models, and with `whole` the blobs and the index too."""
        return _Run(self._store, self._describer, self._hashes, self._blobs, repair, progress).run(
            models, self._indexer if whole else None
        )


class _Run:
    def __init__(
        self,
        store: Store,
        describer: Describer,
        hashes: HashCache,
        blobs: Blobs,
        repair: bool,
        progress: ProgressSink | None,
    ) -> None:
        self._store, self._describer, self._hashes, self._blobs = store, describer, hashes, blobs
        self._root = store.writable_root
        self._repair = repair and self._root is not None
        self._progress = progress
        self._read: dict[tuple[int, int, int], str] = {}
        self._report = Report()

    def run(self, models: Iterable[Model], indexer: Indexer | None) -> dict[str, Any]:
        for model in models:
            self._report.models += 1
            if model.problem is not None:
                self._report.problem(model.path, "", model.problem)
            for version in model.versions.values():
                described = self._describer.describe(model, version)
                if self._repair and version.writable and not version.plain:
                    self._mend(model, described)
                    described = self._describer.describe(model, version)
                self._look_at(described)
        if indexer is not None:
            self._look_at_blobs()
            self._report.index = indexer.rebuild(self._progress)
        return self._report.fields()

    def _look_at(self, described: Described) -> None:
        report = self._report
        report.versions += 1
        report.files += len(described.files)
        report.bytes += described.bytes
        try:
            self._verify(described)
        except BadModel as error:
            report.problem(described.path, described.version, error)

    def _verify(self, described: Described) -> None:
        """Like `check`, but every file is read, whatever is remembered of it. Raises BadModel."""
        for file in described.files.values():
            if not is_part(file.name):
                continue
            try:
                found = self._digest(file)
            except OSError as error:
                raise bad(file.name, f"cannot be read: {error.strerror}") from None
            known = self._hashes.known(file)
            if known is None:
                self._hashes.remember(file, found)
            elif found != known:
                raise bad(file.name, "has changed on disk although nobody wrote to it; restore it from a copy")
        check(described, self._hashes, self._progress)

    def _digest(self, file: ScannedFile) -> str:
        """What the file holds now; a content with several names is read once per run. Raises OSError."""
        key = (file.path.stat().st_dev, file.stamp[3], file.stamp[1])
        if key not in self._read:
            self._read[key] = sha256_of(file, self._progress)
        return self._read[key]

    def _holds(self, path: Path, sha256: str) -> bool:
        try:
            return self._digest(scanned(path.name, path)) == sha256
        except OSError:
            return False

    # ---- mending

    def _mend(self, model: Model, described: Described) -> None:
        """Restore the files of a version that are not what its manifest says, where a sound copy exists."""
        try:
            listed = listed_files(described.manifest)
        except BadModel:
            return  # reported when it is looked at: without its manifest nothing says what was there
        folder = model.versions[described.version].folder
        for entry in listed.values():
            if entry.sha256 and not self._holds(folder / entry.name, entry.sha256):
                self._restore(model, described, folder, entry)

    def _restore(self, model: Model, described: Described, folder: Path, entry: Listed) -> None:
        assert self._root is not None
        with file_errors(described.path, writing=True), tree_lock(self._root):
            if not (folder / MANIFEST).exists():
                return  # removed meanwhile
            source = self._sound_blob(entry.sha256)
            if source:
                self._blobs.restore(entry.sha256, folder / entry.name)
                said = {"path": model.path, "version": described.version, "file": entry.name, "from": source}
                self._report.repaired.append(said)

    def _sound_blob(self, sha256: str) -> str:
        """Make sure that there is a sound blob of a content; where it came from, or nothing when there is no copy."""
        if self._holds(self._blobs.path(sha256), sha256):
            return "its blob"
        for label, path in self._copies(sha256):
            if self._holds(path, sha256) and self._blobs.renew(sha256, path):
                return label
        return ""

    def _copies(self, sha256: str) -> Iterator[tuple[str, Path]]:
        """Files that should have this content, of all models."""
        for model in self._store.models():
            for version in model.versions.values():
                described = self._describer.describe(model, version)
                with suppress(BadModel):
                    for entry in listed_files(described.manifest).values():
                        file = described.files.get(entry.name)
                        if file is not None and sha256 in (entry.sha256, self._hashes.known(file)):
                            yield f"{model.path}@{version.name}", file.path

    # ---- blobs

    def _look_at_blobs(self) -> None:
        for path in [*self._blobs.all()]:
            self._report.blobs += 1
            if self._holds(path, path.name):
                continue
            if self._repair and self._mend_blob(path):
                continue
            if path.stat().st_nlink == 1:
                error = bad(path.name, "a blob that nobody needs is damaged; gc removes it")
                self._report.problem("", "", error)
        if self._repair:
            self._adopt()

    def _mend_blob(self, path: Path) -> bool:
        """Make a damaged blob again from a version's own copy, or drop it when nobody has it."""
        assert self._root is not None
        with file_errors(str(path), writing=True), tree_lock(self._root):
            said = {"path": "", "version": "", "file": path.name}
            source = self._sound_blob(path.name)
            if source:
                self._report.repaired.append({**said, "from": source})
                return True
            if path.stat().st_nlink == 1:
                path.unlink()
                self._report.repaired.append({**said, "from": "nothing: it was removed"})
                return True
        return False

    def _adopt(self) -> None:
        """Give the files of versions from before there were blobs their blobs, and join what is there twice."""
        for model in self._store.models():
            for version in model.versions.values():
                if not version.writable or version.plain:
                    continue
                described = self._describer.describe(model, version)
                with suppress(BadModel):
                    for entry in listed_files(described.manifest).values():
                        self._adopt_file(described.files.get(entry.name), entry)

    def _adopt_file(self, file: ScannedFile | None, entry: Listed) -> None:
        if file is None or not entry.sha256 or os.path.lexists(self._blobs.path(entry.sha256)):
            return
        if self._digest(file) == entry.sha256:
            self._blobs.adopt(file, entry.sha256)
