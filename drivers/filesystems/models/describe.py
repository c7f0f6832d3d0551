"""What one version of a model is and whether it can be used: its manifest, its files, what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmos.drivers.contract import ProgressSink
from llmos.syscalls.errors import BadModel

from .derive import MARKERS, WEIGHTS, derive, is_part, tensors_of, weight_files
from .hashes import HashCache
from .manifest import listed_files, read_object
from .scan import MANIFEST, Scan, ScannedFile, bad, scan
from .store import Model, Version

KEPT = 256
"""Descriptions kept in memory."""
SHOWN = ("architecture", "tasks", "parameters", "dtype", "quant", "context", "chat_template", "tokenizer", "languages",
         "licence", "origin", "parents", "run", "created", "bytes_by_dtype")  # fmt: skip
"""Manifest fields that `stat` and search hits show."""
COMPLETE = frozenset({"architecture", "tasks", "parameters", "dtype", "context", "files"})
"""A stored manifest with all of these needs nothing from the files themselves."""

Stamps = tuple[tuple[str, tuple[int, int, int, int]], ...]


@dataclass(frozen=True)
class Described:
    """A version with its manifest, completed from its files. With `problem` set it must not be used."""

    path: str
    version: str
    manifest: Mapping[str, Any]
    files: Mapping[str, ScannedFile]
    problem: BadModel | None = None

    @property
    def label(self) -> str:
        return f"{self.path}@{self.version}"

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files.values() if is_part(file.name))

    @property
    def mtime(self) -> float:
        return max((file.mtime for file in self.files.values()), default=0.0)


class Describer:
    """Describes versions; remembers plain folders, whose weights' headers would be read again for every listing."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Stamps, Described]] = {}

    def describe(self, model: Model, version: Version) -> Described:
        """Never raises for a damaged model: that is its `problem`. Raises OSError when the folder is gone."""
        found = scan(version.folder)
        stamps = tuple((file.name, file.stamp) for file in found.files.values())
        key = (str(version.folder), model.path)
        if key in self._known and self._known[key][0] == stamps:
            return self._known[key][1]
        described = _describe(model, version, found)
        if len(self._known) >= KEPT:
            self._known.clear()
        self._known[key] = (stamps, described)
        return described


def complete(name: str, stored: Mapping[str, Any], files: Mapping[str, ScannedFile]) -> dict[str, Any]:
    """A stored manifest (which may be empty) with what it leaves out. Unknown fields are kept. Raises BadModel."""
    if stored.keys() >= COMPLETE:
        return dict(stored)
    return {**derive(name, files), **stored}


def check(described: Described, hashes: HashCache, progress: ProgressSink | None = None) -> list[ScannedFile]:
    """The files to load, after checking each of them.

    Raises:
        BadModel: a file is missing, has the wrong size or hash, is truncated, is a pickle or lies elsewhere.
        OSError: a file cannot be read.
    """
    if described.problem is not None:
        raise described.problem
    try:
        return _check(described, hashes, progress)
    except BadModel as error:
        raise labelled(described.label, error) from None


def labelled(label: str, error: BadModel) -> BadModel:
    """The same error with the model's name before its text."""
    return BadModel(f"{label} cannot be used: {error.file}: {error.why}", file=error.file, why=error.why)


def _describe(model: Model, version: Version, found: Scan) -> Described:
    manifest: dict[str, Any] = {}
    problem = found.problem
    try:
        if MANIFEST in found.files:
            manifest = read_object(found.files[MANIFEST].path, MANIFEST)
            listed_files({"files": [], **manifest})
        manifest = complete(model.parts[-1] if model.parts else "", manifest, found.files)
    except BadModel as error:
        problem = problem or error
    manifest |= {"name": model.path.lstrip("/") or version.folder.resolve().name, "version": version.name}
    described = Described(model.path, version.name, manifest, found.files)
    if problem is None:
        return described
    return Described(model.path, version.name, manifest, found.files, labelled(described.label, problem))


def _check(described: Described, hashes: HashCache, progress: ProgressSink | None) -> list[ScannedFile]:
    files = described.files
    listed = listed_files(described.manifest)
    for entry in listed.values():
        if not is_part(entry.name):
            raise bad(entry.name, "is a pickle, which could run any code when it is read; convert it to safetensors")
        if entry.name not in files:
            raise bad(entry.name, "is missing: the manifest lists it; copy it into the folder")
        size = files[entry.name].bytes
        if size != entry.bytes:
            raise bad(entry.name, f"has {size} bytes, the manifest says {entry.bytes}; copy the file again")
    parts = {name: files[name] for name in listed}
    _check_needed(parts, files)
    for name, file in parts.items():
        if name.endswith(WEIGHTS):
            tensors_of(file)
    for entry in listed.values():
        if entry.sha256 and hashes.digest(files[entry.name], progress) != entry.sha256:
            raise bad(entry.name, "has not the content that the manifest's sha256 promises; copy the file again")
    return [*parts.values()]


def _check_needed(parts: Mapping[str, ScannedFile], files: Mapping[str, ScannedFile]) -> None:
    if not any(marker in parts for marker in MARKERS):
        raise bad(MANIFEST, f"does not list {MARKERS[0]} (or {MARKERS[1]} for an adapter)")
    if weight_files(parts):
        return
    pickles = [file for name, file in files.items() if not is_part(name) and name != MANIFEST]
    if pickles:
        largest = max(pickles, key=lambda file: file.bytes)
        raise bad(largest.name, "the only weights are a pickle, which could run any code; convert it to safetensors")
    raise bad("model.safetensors", "is missing: the folder holds no weights; copy them into it")
