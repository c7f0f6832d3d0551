"""The `models` file system: `/[org/]name[@version|@alias]` over folders of models."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from llmos.drivers.contract import FileInfo, FileSystem, Found, ModelSource, OpenHandle, ProgressSink, SourceFile
from llmos.syscalls.errors import BadArgument, BadModel, LlmosError, NotDirectory, NotFound, NotSupported, ReadOnly

from ..handles import BytesHandle, ReadHandle, check_mode, check_version
from ..locks import try_lock
from ..paths import Parts, bad_path, file_errors, join, page, split
from ..scratch import Scratch
from .bring.job import Bringer
from .bring.kinds import FILLERS
from .bring.push import push
from .blobs import Blobs
from .derive import CONFIG, WEIGHTS
from .describe import SHOWN, Described, Describer, check
from .hashes import HashCache
from .index import Index, index_file
from .indexing import Indexer, parents_of, texts
from .lineage import Relatives
from .maintenance import Maintenance
from .publish import Publisher
from .scan import MANIFEST, open_scanned
from .search import Wanted, search
from .store import Layer, Model, Store, Target, Version

SHOWN_MODELS = 8
"""Models that are named to who asked for the folder of them."""


class ModelsFileSystem(FileSystem):
    """Models of one source: folders laid over each other, of which only the first may be written."""

    def __init__(self, layers: Sequence[Layer], cache: Path) -> None:
        self._store = Store(layers)
        self._describer = Describer()
        self._hashes = HashCache(cache)
        scratch = Scratch(layers[0].root)
        self._index = Index(index_file(cache, [layer.root for layer in layers]))
        self._indexer = Indexer(self._store, self._describer, self._index)
        blobs = Blobs(layers[0].root, self._hashes)
        self._publisher = Publisher(self._store, scratch, self._hashes, blobs)
        self._maintenance = Maintenance(
            self._store, scratch, self._hashes, self._describer, blobs, self._index, self._indexer
        )
        self._located: dict[str, int] = {}
        if self._store.writable_root is not None:
            with suppress(PermissionError):  # a folder that cannot be written has nothing of ours to sweep
                scratch.sweep()

    def open(self, path: str, mode: str, expected_version: str | None = None) -> OpenHandle:
        if check_mode(mode) != "r":
            raise ReadOnly(
                f"{path} cannot be written: the files of a model are never changed in place. "
                "Store a whole folder as a new version instead (llmos cp FOLDER /models/NAME)"
            )
        model, version, inner = self._in_model(path)
        check_version(path, version.name, expected_version)
        with file_errors(path):
            described = self._describer.describe(model, version)
            file = described.files.get("/".join(inner))
            if file is not None:
                return ReadHandle(path, open_scanned(version.folder, file), version.name)
        if inner == (MANIFEST,):
            return BytesHandle(_manifest_bytes(described), version.name)
        if not inner or self._below(described, inner):
            raise bad_path(path, "is a model or a folder; a file is expected")
        raise NotFound(f"{path} does not exist in {described.label}")

    def list(self, path: str, after: str = "") -> Sequence[FileInfo]:
        parts = split(path)
        target = self._store.resolve(parts)
        with file_errors(path):
            if target.model is None:
                shown = page(self._store.children(parts), join, after)
                return [info for child in shown if (info := self._child(child)) is not None]
            described = self._describer.describe(target.model, target.model.choose(target.selector))
            prefix = join(parts[: len(parts) - len(target.inner)])
            found = page(self._entries(described, target.inner, prefix), lambda info: info.path, after)
        if not found and target.inner and not self._below(described, target.inner):
            if self._file_info(described, target.inner, path) is not None:
                raise NotDirectory(f"{path} is a file")
            raise NotFound(f"{path} does not exist in {described.label}")
        return found

    def stat(self, path: str) -> FileInfo:
        parts = split(path)
        target = self._store.resolve(parts)
        if target.model is None:
            return FileInfo(join(parts), "folder")
        version = target.model.choose(target.selector)
        with file_errors(path):
            described = self._describer.describe(target.model, version)
        if not target.inner:
            return self._with_relatives(target.model, described, _model_info(target.model, described, join(parts)))
        found = self._file_info(described, target.inner, join(parts))
        if found is not None:
            return found
        if self._below(described, target.inner):
            return FileInfo(join(parts), "folder", version=version.name)
        raise NotFound(f"{path} does not exist in {described.label}")

    def locate(self, path: str, version: str = "") -> tuple[str, ModelSource]:
        """The checked files of a model. Until `release` the version cannot be removed, by any process.

        Raises:
            NotFound: no such model or version.
            BadModel: a file is missing, damaged, a pickle or outside of the model's folder.
            NotSupported: the path is a file of a model.
        """
        target = self._model(path)
        if target.inner:
            raise NotSupported(f"{path} is a file of a model; only whole models are located", why="read it instead")
        model, chosen = self._choose(target, version)
        if model.problem is not None:
            raise model.problem
        with file_errors(path):
            lock = self._lock(path, chosen)
            try:
                described = self._describer.describe(model, chosen)
                files = check(described, self._hashes, self.progress)
            except (BadModel, OSError):
                os.close(lock)
                raise
        token = uuid.uuid4().hex
        self._located[token] = lock
        sources = [SourceFile(file.name, file.path, file.bytes) for file in files]
        return token, ModelSource(model.path, chosen.name, sources, described.manifest)

    def release(self, token: str) -> None:
        """Also drops a staged folder that was not committed."""
        lock = self._located.pop(token, None)
        if lock is None:
            self._publisher.discard(token)
        else:
            os.close(lock)

    def remove(self, path: str) -> None:
        target = self._store.resolve(split(path))
        if target.model is None:
            self._maintenance.remove_folder(split(path))
        elif target.inner:
            raise ReadOnly(f"{path} is part of a model and cannot be removed alone; remove the model or the version")
        else:
            self._maintenance.remove(target.model, target.selector)

    def search(self, path: str, query: str, filters: Mapping[str, Any], limit: int) -> Sequence[Found]:
        """Models below a path (or the versions of one) by words and by filters, best first; see docs/registry.md.

        Raises:
            NotFound: no such model or folder.
            BadArgument: an unknown filter, or a value it cannot have.
            NotSupported: the path is a file of a model.
        """
        parts = split(path)
        target = self._store.resolve(parts)
        if target.inner:
            raise NotSupported(f"{path} is a file of a model; only models are searched", why="search the folder above")
        version = "" if target.model is None or not target.selector else target.model.choose(target.selector).name
        wanted = Wanted(join(parts) if target.model is None else target.model.path, version, filters)
        with file_errors(path):
            behind = self._indexer.sync(self.progress)
        return search(self._index, query, wanted, limit, behind)

    def stage(self, path: str) -> tuple[str, Path]:
        return self._publisher.stage(path, split(path))

    def commit(
        self,
        token: str,
        manifest: Mapping[str, Any],
        expected_version: str | None = None,
        known: Mapping[str, str] | None = None,
    ) -> str:
        """Publish a staged folder; `known` gives the sha256 of files that were hashed while they were written."""
        return self._publisher.commit(token, manifest, expected_version, self.progress, known)

    def bring(
        self, path: str, sources: Sequence[ModelSource | str], recipe: Mapping[str, Any], progress: ProgressSink
    ) -> Mapping[str, Any]:
        """From files of this machine, and what `bring.kinds` lists beside; the options are in `bring.job.OPTIONS`."""
        bringer = Bringer(self._store, self._publisher, FILLERS, self._maintenance.alias)
        return bringer.bring(path, sources, recipe, progress)

    def send(self, path: str, target: str, recipe: Mapping[str, Any], progress: ProgressSink) -> Mapping[str, Any]:
        """To another LLM OS. Option: replace."""
        token, source = self.locate(path)
        try:
            return push(source, target, recipe.get("options") or {}, progress)
        finally:
            self.release(token)

    def control(self, action: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Actions: alias, tag, rollback, measure, fsck and gc; their options are in `maintenance.ACTIONS`."""
        return self._maintenance.control(action, options, self.progress)

    def close(self) -> None:
        """Close the index; it is opened again when it is needed."""
        self._index.close()

    def _model(self, path: str) -> Target:
        target = self._store.resolve(split(path))
        if target.model is not None:
            return target
        inside: list[str] = []
        with suppress(OSError):  # what cannot be read is not named
            inside.extend(model.path.lstrip("/") for model in islice(self._store.models(split(path)), SHOWN_MODELS))
        if inside:
            raise NotFound(f"{path} is a folder of models, not a model; in it: {', '.join(inside)}")
        raise BadModel(
            f"{path} is not a model: it has no {CONFIG}. Name the folder that holds {CONFIG}, the weights "
            f"(*{WEIGHTS}) and the tokenizer, or copy the missing files into this one",
            file=CONFIG,
            why="is missing",
        )

    def _in_model(self, path: str) -> tuple[Model, Version, Parts]:
        target = self._store.resolve(split(path))
        if target.model is None:
            raise bad_path(path, "is a folder; a file is expected")
        model, version = self._choose(target, "")
        return model, version, target.inner

    def _choose(self, target: Target, version: str) -> tuple[Model, Version]:
        assert target.model is not None
        chosen = target.model.choose(version or target.selector)
        if version and target.selector and target.model.choose(target.selector) != chosen:
            raise BadArgument(
                f"{target.model.path}@{target.selector} is not the version {version}", name="version", got=version
            )
        return target.model, chosen

    def _lock(self, path: str, version: Version) -> int:
        lock = try_lock(version.marker, exclusive=False)
        if lock is None:
            raise NotFound(f"{path} is being removed")
        return lock

    def _with_relatives(self, model: Model, described: Described, info: FileInfo) -> FileInfo:
        """Also what the version was made from and what was made from it, as far as the index knows by now."""
        found: dict[str, Any] = {}
        with suppress(LlmosError, OSError):  # without the index there is still all that the model itself says
            behind = self._indexer.sync(self.progress, patient=False)
            relatives = self._index.use(lambda db: Relatives(db, self._find))
            found["lineage"] = relatives.ancestors(model.path, described.version, [*parents_of(described.manifest)])
            if not behind:
                found["children"] = relatives.children(model.path, described.version)
            found["measured"] = relatives.measured(model.path, described.version)
        return replace(info, fields={**info.fields, **{name: value for name, value in found.items() if value}})

    def _find(self, path: str) -> Model | None:
        return self._store.model(split(path))

    def _child(self, parts: Parts) -> FileInfo | None:
        try:
            model = self._store.model(parts)
            if model is None:
                return FileInfo(join(parts), "folder")
            return _model_info(model, self._describer.describe(model, model.choose("")), model.path)
        except FileNotFoundError:
            return None  # removed while the folder was listed
        except PermissionError as error:
            return FileInfo(join(parts), "folder", fields={"problem": error.strerror})

    def _entries(self, described: Described, inner: Parts, prefix: str) -> Iterator[FileInfo]:
        depth = len(inner)
        names = {tuple(name.split("/")) for name in described.files} | {(MANIFEST,)}
        for child in {name[: depth + 1] for name in names if name[:depth] == inner and len(name) > depth}:
            path = f"{prefix.rstrip('/')}{join(child)}"
            found = self._file_info(described, child, path)
            yield found or FileInfo(path, "folder", version=described.version)

    def _below(self, described: Described, inner: Parts) -> bool:
        prefix = "/".join(inner) + "/"
        return any(name.startswith(prefix) for name in described.files)

    def _file_info(self, described: Described, inner: Parts, path: str) -> FileInfo | None:
        file = described.files.get("/".join(inner))
        if file is not None:
            return FileInfo(path, "file", file.bytes, described.version, file.mtime)
        if inner == (MANIFEST,):
            return FileInfo(path, "file", len(_manifest_bytes(described)), described.version, described.mtime)
        return None


def _model_info(model: Model, described: Described, path: str) -> FileInfo:
    fields: dict[str, Any] = {name: described.manifest[name] for name in SHOWN if name in described.manifest}
    fields |= {"current": model.current, "versions": [*model.versions], "aliases": dict(model.refs.aliases)}
    tags = {*model.refs.tags.get(described.version, ()), *texts(described.manifest.get("tags"))}
    if tags:
        fields["tags"] = sorted(tags)
    if described.manifest.get("signature"):
        fields["signature"] = {"state": "unverified", "given": described.manifest["signature"]}
    problem = model.problem or described.problem
    if problem is not None:
        fields["problem"] = str(problem)
    return FileInfo(path, "model", described.bytes, described.version, described.mtime, fields)


def _manifest_bytes(described: Described) -> bytes:
    """The manifest of a folder that has none."""
    return json.dumps(described.manifest, indent=2, ensure_ascii=False).encode() + b"\n"
