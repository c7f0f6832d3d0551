"""Storing new versions: a staged folder becomes a version by one rename, or does not exist.

The slow part (reading every file for its hash, waiting for the disk) comes before the lock of the tree is taken; under
the lock are only the check of the expected version, the manifest and the rename. A process killed before the rename
leaves a scratch folder, which the next start sweeps; after it, a whole version.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmos.drivers.contract import ProgressSink
from llmos.syscalls.errors import Conflict, Exists, NotFound, ReadOnly

from ..locks import tree_lock
from ..paths import Parts, bad_path, file_errors, join, replace_file, sync_folder
from ..scratch import Scratch, Slot
from .blobs import Adopted, Blobs
from .changes import note
from .derive import is_part
from .describe import Described, check, complete
from .hashes import HashCache, sha256_of
from .manifest import Listed, listed_files, read_object
from .scan import MANIFEST, VERSIONS, ScannedFile, bad, scan
from .store import LATEST, NAME, Model, Store, next_order, write_refs


@dataclass(frozen=True)
class Staged:
    """A folder that is being filled for a model; `version` is empty where the next number is to be used."""

    parts: Parts
    version: str
    slot: Slot
    folder: Path


@dataclass(frozen=True)
class Prepared:
    """A staged folder that was checked: `manifest` lacks name and version, `files` are in the manifest's order."""

    manifest: dict[str, Any]
    files: list[Adopted]

    @property
    def hashed(self) -> list[tuple[Adopted, str]]:
        """Each file with its sha256."""
        return [(file, entry["sha256"]) for file, entry in zip(self.files, self.manifest["files"], strict=True)]


class Publisher:
    """Stages and commits versions of the models of one store."""

    def __init__(self, store: Store, scratch: Scratch, hashes: HashCache, blobs: Blobs) -> None:
        self._store, self._scratch, self._hashes, self._blobs = store, scratch, hashes, blobs
        self._staged: dict[str, Staged] = {}

    def stage(self, path: str, parts: Parts) -> tuple[str, Path]:
        """A token and an empty folder for a new version of the model at `path`, which need not exist yet.

        Raises:
            BadArgument: the path cannot name a model.
            ReadOnly: the source cannot be written.
            Exists: the path asks for a version that exists, or names a folder of models.
            NoSpace: the disk is full.
        """
        root = self._root(path)
        model_parts, version = self._name(path, parts)
        self._check_place(root, model_parts, version)
        with file_errors(path, writing=True):
            slot = self._scratch.take()
            folder = slot.folder / "files"
            folder.mkdir()
        self._staged[slot.id] = Staged(model_parts, version, slot, folder)
        return slot.id, folder

    def discard(self, token: str) -> None:
        """Drop a staged folder; a token that is not one of them is ignored."""
        staged = self._staged.pop(token, None)
        if staged is not None:
            staged.slot.close()

    def commit(
        self,
        token: str,
        manifest: Mapping[str, Any],
        expected: str | None,
        progress: ProgressSink | None,
        known: Mapping[str, str] | None = None,
    ) -> str:
        """Publish a staged folder. After an error it is still there, to be mended, committed again or discarded.

        A manifest with `candidate` true adds a version that does not become current, where there is another. `known`
        are the SHA-256 of files by name that were computed while they were written: those are not read again.

        Raises:
            NotFound: no such token.
            Conflict: the current version is not `expected` (an empty text expects no model yet).
            BadModel: the folder does not hold a model that could be loaded.
            Exists, NoSpace, ReadOnly.
        """
        staged = self._staged.get(token)
        if staged is None:
            raise NotFound(f"nothing is staged under {token!r}; it was committed or discarded already")
        path = join(staged.parts)
        root = self._root(path)
        with file_errors(path, writing=True):
            prepared = self._prepare(staged, manifest, progress, known or {})
            try:
                _sync_tree(staged.folder, [adopted.file for adopted in prepared.files])
                with tree_lock(root):
                    version = self._publish(root, staged, prepared.manifest, expected)
            except BaseException:
                self._blobs.undo(prepared.hashed)
                raise
            folder = root.joinpath(*staged.parts, VERSIONS, version)
            for adopted, sha256 in prepared.hashed:
                if not adopted.joined:  # else its hash is remembered under the name of its blob
                    file = adopted.file
                    self._hashes.remember(replace(file, path=folder / file.name), sha256)
        self.discard(token)
        return version

    def _prepare(
        self, staged: Staged, manifest: Mapping[str, Any], progress: ProgressSink | None, known: Mapping[str, str]
    ) -> Prepared:
        """Check the folder, hash it and join it with the blobs; returns its manifest without name and version."""
        found = scan(staged.folder)
        if found.problem is not None:
            raise found.problem
        given = {**_stored(found.files), **manifest}
        files = [file for file in found.files.values() if file.name != MANIFEST]
        for file in files:
            _refuse(file)
        promised = listed_files({"files": [], **given})
        missing = sorted(promised.keys() - found.files.keys())
        if missing:
            raise bad(missing[0], "is missing: the manifest lists it, the folder does not hold it")
        given["files"] = [{"name": file.name, "bytes": file.bytes} for file in files]
        whole = complete(staged.parts[-1], given, found.files)
        check(Described(join(staged.parts), "new", whole, found.files), self._hashes)
        hashed = ((file, known.get(file.name) or sha256_of(file, progress)) for file in files)
        whole["files"] = [_entry(file, promised.get(file.name), digest) for file, digest in hashed]
        _json(whole)
        pairs = zip(files, whole["files"], strict=True)
        adopted = [self._blobs.adopt(file, entry["sha256"]) for file, entry in pairs]
        return Prepared(whole, adopted)

    def _publish(self, root: Path, staged: Staged, whole: dict[str, Any], expected: str | None) -> str:
        model = self._check_place(root, staged.parts, staged.version)
        current = "" if model is None else model.current
        if expected is not None and expected != current:
            now = f"is now {current}" if current else "does not exist"
            raise Conflict(
                f"{join(staged.parts)} {now}, not {expected or 'new'}; look at it, then commit again", version=current
            )
        candidate = bool(whole.pop("candidate", False))
        order = next_order(model)
        version = staged.version or str(order)
        whole |= {
            "name": join(staged.parts).lstrip("/"), "version": version, "order": order, "previous": current,
            "created": whole.get("created") or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip
        replace_file(staged.folder / MANIFEST, _json(whole))
        versions = root.joinpath(*staged.parts, VERSIONS)
        versions.mkdir(parents=True, exist_ok=True)
        if candidate and model is not None:  # from the moment that it is there, the one before stays current
            write_refs(root.joinpath(*staged.parts), replace(model.refs, pinned=current, newest=version))
        staged.folder.rename(versions / version)
        for depth in range(len(staged.parts) + 1):
            sync_folder(root.joinpath(*staged.parts[:depth]))
        sync_folder(versions)
        note(root, join(staged.parts))
        return version

    def _check_place(self, root: Path, parts: Parts, version: str) -> Model | None:
        """The model as it is now, after checking that a version can be added. Raises Exists, NotFound, BadModel."""
        model = self._store.model(parts)
        if model is None:
            if len(parts) == 2 and self._store.model(parts[:1]) is not None:
                raise Exists(f"{join(parts[:1])} is a model, so nothing can be stored below it")
            if len(parts) == 1 and any(self._store.model(child) for child in self._store.children(parts)):
                raise Exists(f"{join(parts)} is a folder of models; name a model in it")
            return None
        if model.problem is not None:
            raise model.problem
        if root.joinpath(*parts).is_symlink():
            raise ReadOnly(f"{model.path} is a link to a folder elsewhere, which is not changed; use another name")
        if version and (version in model.versions or version in model.refs.aliases):
            raise Exists(f"{model.path} has a version or alias {version} already; versions are never replaced")
        return model

    def _name(self, path: str, parts: Parts) -> tuple[Parts, str]:
        if not 1 <= len(parts) <= 2:
            raise bad_path(path, "is not of the form /name or /org/name, so no model can be stored there")
        last, at, version = parts[-1].partition("@")
        names = (*parts[:-1], last)
        for name in names:
            if not name or name.startswith(".") or "@" in name or not name.isprintable() or name == VERSIONS:
                raise bad_path(path, f"has the name {name!r}, which a model cannot have")
        if at and (not NAME.fullmatch(version) or version == LATEST):
            raise bad_path(path, f"asks for the version {version!r}; use up to 64 letters, digits, . _ or -")
        return names, version

    def _root(self, path: str) -> Path:
        root = self._store.writable_root
        if root is None:
            raise ReadOnly(f"{path} cannot be stored: this source of models is read-only")
        return root


def _entry(file: ScannedFile, promised: Listed | None, digest: str) -> dict[str, Any]:
    if promised is not None and (promised.bytes != file.bytes or promised.sha256 not in ("", digest)):
        raise bad(file.name, "is not the file that the manifest lists: its size or sha256 differs")
    return {"name": file.name, "bytes": file.bytes, "sha256": digest}


def _stored(files: Mapping[str, ScannedFile]) -> Mapping[str, Any]:
    """The manifest that whoever filled the folder wrote into it, if any."""
    if MANIFEST not in files:
        return {}
    _refuse(files[MANIFEST], part=True)
    return read_object(files[MANIFEST].path, MANIFEST)


def _refuse(file: ScannedFile, part: bool = False) -> None:
    if file.path.is_symlink():
        raise bad(file.name, "is a link; a stored model holds its files itself")
    if not part and not is_part(file.name):
        raise bad(file.name, "is a pickle, which could run any code when it is read; convert it to safetensors")


def _json(manifest: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(manifest, indent=2, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise bad(MANIFEST, f"cannot be written as JSON ({error})") from None


def _sync_tree(folder: Path, files: list[ScannedFile]) -> None:
    for file in files:
        with file.path.open("rb") as opened:
            os.fsync(opened.fileno())
    for inner in {folder, *(file.path.parent for file in files)}:
        sync_folder(inner)
