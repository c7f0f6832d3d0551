"""One job that brings a model: where it comes from is found out, a staged folder is filled, and it becomes a version.

Nothing is seen before the last step, which is one rename. Two jobs that bring the same model at once end with one
version: the second one finds its own files there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmos.drivers.contract import ModelSource, ProgressSink
from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument, BadModel, Conflict, Exists, NotSupported

from ...copying import sha256
from ...paths import Parts, file_errors, split
from ..manifest import Listed, listed_files, read_object
from ..publish import Publisher
from ..scan import MANIFEST
from ..store import LATEST, NAME, Store

OPTIONS: Mapping[str, type] = {
    "replace": bool, "revision": str, "include": list, "alias": str, "licence": str, "dequantize": bool,
}  # fmt: skip
"""Options of the recipe: store a new version of a model that exists; branch, tag or commit of the hub; patterns of
files to fetch; an alias that the new version gets; the licence, where the source names none; quantized weights of GGUF
become 16 bits."""
OWN = frozenset({"name", "version", "order", "previous", "created"})
"""Fields of a manifest that belong to the place where a version lies, and not to what it is."""


class Meter:
    """The progress of a whole job, added up from whatever thread does a part of it."""

    def __init__(self, sink: ProgressSink, total: int, stage: str) -> None:
        self._sink, self._total, self._stage = sink, total, stage
        self._done = 0
        self._lock = threading.Lock()
        self.add(0)

    def add(self, count: int) -> None:
        """So many bytes more are done."""
        with self._lock:
            self._done += count
            self._sink(self._done, self._total, "bytes", self._stage)


@dataclass(frozen=True)
class Filled:
    """A staged folder as it was filled: what its manifest is to say, and the SHA-256 of files that are known by now."""

    manifest: Mapping[str, Any]
    known: Mapping[str, str]
    fetched: int = 0
    """Bytes that came over the network in this run."""


@dataclass(frozen=True)
class Wanted:
    """What is to be brought, and how. `root` is the tree that it is brought into."""

    path: str
    source: ModelSource | str
    format: str
    options: Mapping[str, Any]
    root: Path
    progress: ProgressSink
    current: Callable[[], tuple[str, str]] = lambda: ("", "")
    """The current version of the model that is there, and the origin it names."""

    @property
    def replace(self) -> bool:
        """Whether a model that exists gets a new version."""
        return bool(self.options.get("replace", False))

    def ready(self, origin: str) -> None:
        """To be called before anything is fetched: ends the job where it has nothing to do, or may not do it.

        Raises:
            Unchanged: exactly this is what is there.
            Exists: something else is.
        """
        version, here = self.current()
        if version and here == origin:
            raise Unchanged(version)
        if version and not self.replace:
            raise _exists(self.path)


class Unchanged(Exception):
    """What is to be brought is there already, as `version`."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.version = version


Filler = Callable[[Wanted, Path], Filled]
"""Fills an empty folder. Raises BadModel, NotFound, Unavailable, Denied, OSError."""


@dataclass(frozen=True)
class Fillers:
    """Who can fill a folder: by the beginning of a URL, by the ending of a single file, and for any other files."""

    files: Filler
    urls: Mapping[str, Filler] = field(default_factory=dict)
    endings: Mapping[str, Filler] = field(default_factory=dict)

    def choose(self, source: ModelSource | str) -> Filler:
        """Raises NotSupported for a URL that nobody fetches."""
        if isinstance(source, str):
            for start, filler in self.urls.items():
                if source.startswith(start):
                    return filler
            known = ", ".join(self.urls) or "none"
            raise NotSupported(f"nothing is brought from {source}: known are {known}", why="unknown kind of source")
        if len(source.files) == 1:
            for ending, filler in self.endings.items():
                if source.files[0].name.endswith(ending):
                    return filler
        return self.files


class Bringer:
    """Brings models into one store."""

    def __init__(
        self, store: Store, publisher: Publisher, fillers: Fillers, alias: Callable[[str, str, str], object]
    ) -> None:
        self._store, self._publisher, self._fillers, self._alias = store, publisher, fillers, alias

    def bring(
        self, path: str, sources: Sequence[ModelSource | str], recipe: Mapping[str, Any], progress: ProgressSink
    ) -> dict[str, Any]:
        """Store one source as a new version; see `FileSystem.bring`.

        Raises:
            Exists: the model exists, is not the same, and `replace` is not set.
            BadArgument, BadModel, NotFound, NotSupported, ReadOnly, NoSpace, and what the source answers.
        """
        wanted = self._wanted(path, sources, recipe, progress)
        answer = self._bring(path, wanted)
        if alias := wanted.options.get("alias"):
            self._alias(path.partition("@")[0], alias, answer["version"])
        return answer

    def _bring(self, path: str, wanted: Wanted) -> dict[str, Any]:
        filler = self._fillers.choose(wanted.source)
        if wanted.options.get("dequantize") and filler not in self._fillers.endings.values():
            want = f"a file that ends in {', '.join(self._fillers.endings)}"
            text = "dequantize is for single files; what else cannot be kept narrow is dequantized when it is loaded"
            raise BadArgument(text, name="dequantize", got="true", want=want)
        if isinstance(wanted.source, ModelSource) and not wanted.replace and (version := wanted.current()[0]):
            if not self._holds(split(path), wanted.source, progress=wanted.progress):
                raise _exists(path)
            return {"files": 0, "bytes": 0, "fetched": 0, "unchanged": True, "version": version}
        token, folder = self._publisher.stage(path, split(path))
        try:
            with file_errors(path, writing=True):
                filled = filler(wanted, folder)
            return self._commit(wanted, token, folder, filled)
        except Unchanged as there:
            return {"files": 0, "bytes": 0, "fetched": 0, "unchanged": True, "version": there.version}
        finally:
            self._publisher.discard(token)

    def _wanted(
        self, path: str, sources: Sequence[ModelSource | str], recipe: Mapping[str, Any], progress: ProgressSink
    ) -> Wanted:
        if len(sources) != 1:
            text = f"{len(sources)} sources are given; one model is brought at a time"
            raise BadArgument(text, name="sources", got=str(len(sources)), want="one source")
        options = recipe.get("options") or {}
        for name, value in options.items():
            if name not in OPTIONS:
                text = f"import has no option {name!r}; {suggest(name, OPTIONS)}"
                raise BadArgument(text, name=name, want=", ".join(OPTIONS))
            if not isinstance(value, OPTIONS[name]):
                want = OPTIONS[name].__name__
                raise BadArgument(f"the option {name} is {value!r}", name=name, got=repr(value)[:80], want=want)
        if not NAME.fullmatch(alias := options.get("alias", "x")) or alias == LATEST:
            raise BadArgument(f"{alias!r} cannot be an alias", name="alias", got=alias[:80], want="letters and digits")
        root = self._store.writable_root or Path()
        source, form = sources[0], str(recipe.get("format", ""))
        return Wanted(path, source, form, options, root, progress, lambda: self._current(path))

    def _current(self, path: str) -> tuple[str, str]:
        """Current version and origin of the model at a path that names no version; empty where there is none."""
        model = None if "@" in path else self._store.model(split(path))
        if model is None:
            return "", ""
        try:
            manifest = read_object(model.versions[model.current].folder / MANIFEST, MANIFEST)
        except (BadModel, OSError):
            return model.current, ""
        return model.current, str(manifest.get("origin", ""))

    def _commit(self, wanted: Wanted, token: str, folder: Path, filled: Filled) -> dict[str, Any]:
        path, _, named = wanted.path.partition("@")
        sizes = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
        answer = {"files": len(sizes), "bytes": sum(sizes.values()), "fetched": filled.fetched, "unchanged": False}
        manifest = {name: value for name, value in filled.manifest.items() if name not in OWN}
        if licence := wanted.options.get("licence"):
            manifest.setdefault("licence", licence)
        expected = None if named or wanted.replace else ""
        if not named and (same := self._same(split(path), filled.known)):
            return {**answer, "version": same, "unchanged": True}
        try:
            version = self._publisher.commit(token, manifest, expected, wanted.progress, filled.known)
        except Conflict:
            same = self._same(split(path), filled.known)
            if not same:
                raise _exists(path) from None
            return {**answer, "version": same, "unchanged": True}
        return {**answer, "version": version, "deduplicated_bytes": self._shared(split(path), version)}

    def _shared(self, parts: Parts, version: str) -> int:
        """Bytes of a version that other versions have too: more names than its own and that of the blob."""
        model = self._store.model(parts)
        if model is None or version not in model.versions:
            return 0  # removed already
        states = [path.stat() for path in model.versions[version].folder.rglob("*") if path.is_file()]
        return sum(state.st_size for state in states if state.st_nlink > 2)

    def _holds(self, parts: Parts, source: ModelSource, progress: ProgressSink) -> bool:
        """Whether the current version holds exactly the located files, which are read when names and sizes agree."""
        listed = self._listed(parts)
        if {name: file.bytes for name, file in listed.items()} != {file.name: file.bytes for file in source.files}:
            return False
        meter = Meter(progress, sum(file.bytes for file in source.files), "compare")
        for file in source.files:
            with file.path.open("rb") as opened:
                if sha256(opened.fileno(), meter.add) != listed[file.name].sha256:
                    return False
        return True

    def _same(self, parts: Parts, known: Mapping[str, str]) -> str:
        """The current version of a model if it holds exactly these files, else an empty text."""
        model = self._store.model(parts)
        if model is None or not known:
            return ""
        listed = self._listed(parts)
        return model.current if {name: file.sha256 for name, file in listed.items()} == dict(known) else ""

    def _listed(self, parts: Parts) -> Mapping[str, Listed]:
        """The files of the current version, as its manifest lists them; none where it cannot be read."""
        model = self._store.model(parts)
        try:
            found = {} if model is None else read_object(model.versions[model.current].folder / MANIFEST, MANIFEST)
            return listed_files(found)
        except (BadModel, OSError):
            return {}


def _exists(path: str) -> Exists:
    return Exists(f"{path} exists already and is not the same; --force stores a new version of it")
