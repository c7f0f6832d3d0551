"""What changes a store and keeps it in order: aliases, tags, rollback, measurements, removing, gc."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmos.drivers.contract import ProgressSink
from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument, Busy, Exists, NotFound, NotSupported, ReadOnly

from ..locks import tree_lock, try_lock
from ..paths import Parts, file_errors, join, split
from ..scratch import Scratch
from .blobs import Blobs
from .bring.partial import sweep
from .changes import note
from .describe import Describer
from .fsck import Fsck
from .hashes import HashCache
from .index import Index, add_measures, prune
from .indexing import Indexer, parents_of
from .lineage import Key, needed_by, resolve
from .measured import checked, drop_measures, read_measures, write_measures
from .scan import REFS, VERSIONS, scan
from .store import LATEST, NAME, Model, Store, Version, without_version, write_refs

KEEP = 3
"""Versions of a model that gc leaves, newest first, unless told otherwise."""
ACTIONS: Mapping[str, frozenset[str]] = {
    "alias": frozenset({"name", "alias", "version"}),
    "tag": frozenset({"name", "tag", "version", "remove"}),
    "rollback": frozenset({"name", "version"}),
    "measure": frozenset({"name", "version", "device", "values"}),
    "fsck": frozenset({"name", "repair"}),
    "gc": frozenset({"name", "keep"}),
}
"""Actions of `control` with their options."""


class Maintenance:
    """Changes to the models of one store, each under the lock of its tree."""

    def __init__(
        self,
        store: Store,
        scratch: Scratch,
        hashes: HashCache,
        describer: Describer,
        blobs: Blobs,
        index: Index,
        indexer: Indexer,
    ) -> None:
        self._store, self._scratch, self._hashes, self._describer = store, scratch, hashes, describer
        self._blobs, self._index = blobs, index
        self._fsck = Fsck(store, describer, hashes, blobs, indexer)

    def control(self, action: str, options: Mapping[str, Any], progress: ProgressSink | None) -> Mapping[str, Any]:
        """Run an action by its name. Raises NotSupported, BadArgument and what the action raises."""
        if action not in ACTIONS:
            raise NotSupported(f"models have no action {action!r}", why=f"the actions are {', '.join(ACTIONS)}")
        for option in options:
            if option not in ACTIONS[action]:
                want = ", ".join(sorted(ACTIONS[action]))
                text = f"{action} has no option {option!r}; {suggest(option, ACTIONS[action])}"
                raise BadArgument(text, name=option, want=want)
        name = _text(options, "name", "" if action in ("fsck", "gc") else None)
        match action:
            case "alias":
                return self.alias(name, _text(options, "alias"), _text(options, "version", LATEST))
            case "tag":
                return self.tag(name, _text(options, "tag"), _text(options, "version", ""), _flag(options, "remove"))
            case "rollback":
                return self.rollback(name, _text(options, "version", ""))
            case "measure":
                version, device = _text(options, "version", ""), _text(options, "device")
                return self.measure(name, version, device, checked(options.get("values")))
            case "fsck":
                return self._fsck.run(self._chosen(name), _flag(options, "repair"), name.strip("/") == "", progress)
        return self.gc(name, options.get("keep", KEEP))

    def alias(self, name: str, alias: str, version: str) -> dict[str, Any]:
        """Let an alias name a version; an empty version removes the alias. Raises BadArgument, Exists, NotFound."""
        if not NAME.fullmatch(alias) or alias == LATEST:
            want = f"up to 64 letters, digits, . _ or -, other than {LATEST}"
            raise BadArgument(f"{alias!r} cannot be an alias; use {want}", name="alias", got=alias, want=want)
        with self._changing(name) as (model, folder):
            if alias in model.versions:
                raise Exists(f"{model.path} has a version {alias}; an alias needs another name")
            aliases = dict(model.refs.aliases)
            if version:
                aliases[alias] = model.choose(version).name
            elif aliases.pop(alias, None) is None:
                raise NotFound(f"{model.path} has no alias {alias}")
            write_refs(folder, replace(model.refs, aliases=aliases))
        return {"name": model.path, "aliases": aliases}

    def tag(self, name: str, tag: str, version: str, remove: bool) -> dict[str, Any]:
        """Give a version a tag, or take it away; several versions may have it. Raises BadArgument, NotFound."""
        if not NAME.fullmatch(tag):
            want = "up to 64 letters, digits, . _ or -"
            raise BadArgument(f"{tag!r} cannot be a tag; use {want}", name="tag", got=tag, want=want)
        with self._changing(name) as (model, folder):
            chosen = model.choose(version).name
            tags = {other: [*listed] for other, listed in model.refs.tags.items()}
            mine = tags.setdefault(chosen, [])
            if remove and tag not in mine:
                raise NotFound(f"{model.path}@{chosen} has no tag {tag}; it has {', '.join(mine) or 'none'}")
            if remove:
                mine.remove(tag)
            elif tag not in mine:
                mine.append(tag)
            write_refs(folder, replace(model.refs, tags={other: tuple(listed) for other, listed in tags.items()}))
        return {"name": model.path, "version": chosen, "tags": mine}

    def measure(self, name: str, version: str, device: str, values: Mapping[str, float]) -> dict[str, Any]:
        """Keep what a run showed of a version on a device; the last run counts. Raises NotFound."""
        model = self._model(name)
        chosen = model.choose(version).name
        added = {(chosen, device, what): value for what, value in values.items()}
        root = self._store.writable_root
        if root is None:
            self._index.use(lambda db: add_measures(db, model.path, added))
        else:
            with file_errors(model.path, writing=True), tree_lock(root):
                write_measures(root, model.parts, {**read_measures(root, model.parts), **added})
                note(root, model.path)
        return {"name": model.path, "version": chosen, "device": device, "values": dict(values)}

    def rollback(self, name: str, version: str) -> dict[str, Any]:
        """Make the version before the current one current again, or the one that is named. Raises NotFound."""
        with self._changing(name) as (model, folder):
            current = model.choose("")
            chosen = model.choose(version) if version else model.before(current)
            if chosen is None:
                raise NotFound(f"{model.path}@{current.name} is the first version; there is none to go back to")
            write_refs(folder, replace(model.refs, pinned=chosen.name, newest=model.newest))
        return {"name": model.path, "version": chosen.name, "was": current.name}

    def remove(self, model: Model, selector: str) -> None:
        """Remove an alias, a version, or, without a selector, the whole model as far as it can be written.

        Raises:
            Busy: located, or an alias names the version.
            ReadOnly: it belongs to a read-only source.
            NotFound: it is gone.
        """
        if selector not in model.versions and selector in model.refs.aliases:
            self.alias(model.path, selector, "")
            return
        with self._trash(model.path) as trash, self._changing(model.path) as (now, folder):
            if selector:
                self._remove_version(now, now.choose(selector), folder, trash)
            else:
                self._remove_model(now, folder, trash)

    def remove_folder(self, parts: Parts) -> None:
        """Remove an empty folder of models. Raises Busy, NotFound, ReadOnly."""
        path = join(parts)
        root = self._root(path)
        if not parts:
            raise ReadOnly("/ is the top of this file system and stays; unmount it instead")
        with file_errors(path, writing=True), tree_lock(root):
            root.joinpath(*parts).rmdir()
            note(root, path)

    def gc(self, name: str, keep: Any) -> dict[str, Any]:
        """Remove old versions beyond the `keep` newest, and contents that nothing has any more.

        Never a plain, current, aliased or located version, nor one that a version which stays was made from.
        """
        if type(keep) is not int or keep < 1:
            want = "a whole number from 1"
            raise BadArgument(f"keep is {keep!r}; it must be {want}", name="keep", got=str(keep), want=want)
        removed: list[str] = []
        freed = 0
        needed = self._needed(name, keep)
        for known in self._chosen(name):
            if known.problem is None and self._old(known, keep, needed):
                with self._trash(known.path) as trash, self._changing(known.path) as (model, folder):
                    for version in self._old(model, keep, needed):
                        size = _own_bytes(version.folder)
                        if self._remove_if_unused(model, version, folder, trash):
                            removed.append(f"{model.path}@{version.name}")
                            freed += size
        root = self._store.writable_root
        blobs = 0
        if root is not None:
            prune(self._hashes.folder)
            self._scratch.sweep()  # first, as what a killed commit left holds contents
            freed += sweep(root)
            blobs, size = self._blobs.collect()
            freed += size
        return {"removed": removed, "blobs": blobs, "bytes": freed, "hashes": self._hashes.prune()}

    def _old(self, model: Model, keep: int, needed: Container[Key] = ()) -> list[Version]:
        kept = {*[*model.versions][-keep:], model.current, *model.refs.aliases.values()}
        return [
            version
            for version in model.versions.values()
            if version.writable
            and not version.plain
            and version.name not in kept
            and (model.path, version.name) not in needed
        ]

    def _needed(self, name: str, keep: int) -> set[Key]:
        """What stays of the whole store when the models of this name are cleared, and what that was made from."""
        cleared = {model.path for model in self._chosen(name)}
        kept: list[Key] = []
        parents: dict[Key, list[Key]] = {}
        for model in self._store.models():
            old = {version.name for version in self._old(model, keep)} if model.path in cleared else set()
            for version in model.versions.values():
                key = (model.path, version.name)
                if version.name not in old or _is_used(version):
                    kept.append(key)
                listed = parents_of(self._describer.describe(model, version).manifest)
                parents[key] = [at for parent in listed if (at := resolve(parent, self._find)) is not None]
        return needed_by(kept, parents)

    def _find(self, path: str) -> Model | None:
        return self._store.model(split(path))

    def _chosen(self, name: str) -> Iterator[Model]:
        """The model of that name, or those of a folder of models; without a name, all."""
        parts = split("/" + name.lstrip("/"))
        if name and self._store.resolve(parts).model is not None:
            yield self._model(name)
        else:
            yield from self._store.models(parts)

    def _model(self, name: str) -> Model:
        target = self._store.resolve(split("/" + name.lstrip("/")))
        if target.model is None or target.inner or target.selector:
            raise NotFound(f"{name} is not the name of a model")
        return target.model

    def _root(self, path: str) -> Path:
        root = self._store.writable_root
        if root is None:
            raise ReadOnly(f"{path} cannot be changed: this source of models is read-only")
        return root

    @contextmanager
    def _changing(self, name: str) -> Iterator[tuple[Model, Path]]:
        """A model as it is now and its folder for changes, with the lock of the tree held."""
        path = self._model(name).path
        root = self._root(path)
        with file_errors(path, writing=True), tree_lock(root):
            model = self._model(name)
            folder = root.joinpath(*model.parts)
            if folder.is_symlink():
                raise ReadOnly(f"{path} is a link to a folder elsewhere; change it there")
            if model.problem is not None:
                raise model.problem
            yield model, folder
            note(root, path)

    @contextmanager
    def _trash(self, path: str) -> Iterator[Path]:
        """A folder to rename things into, so that they disappear at once; it is deleted after the lock is released."""
        self._root(path)
        with file_errors(path, writing=True):
            slot = self._scratch.take()
            shares: list[tuple[Path, str]] = []
            try:
                yield slot.folder
                for folder in slot.folder.iterdir():
                    for version in (folder, *(folder / VERSIONS).glob("*")):
                        if version.is_dir():
                            shares += self._blobs.sound_shares(scan(version).files.values())
            finally:
                slot.close()
                self._blobs.settle(shares)

    def _remove_if_unused(self, model: Model, version: Version, folder: Path, trash: Path) -> bool:
        try:
            self._remove_version(model, version, folder, trash)
        except Busy:
            return False
        return True

    def _remove_version(self, model: Model, version: Version, folder: Path, trash: Path) -> None:
        naming = [alias for alias, target in model.refs.aliases.items() if target == version.name]
        if naming:
            raise Busy(f"{model.path}@{version.name} has the alias {naming[0]}; move or remove the alias first")
        if not version.writable:
            raise ReadOnly(f"{model.path}@{version.name} belongs to a read-only source and cannot be removed")
        if len(model.versions) == 1:
            self._remove_model(model, folder, trash)
            return
        with _unused(model, [version]):
            write_refs(folder, without_version(model, version.name))
            for entry in _plain_entries(folder) if version.plain else [version.folder]:
                entry.rename(trash / entry.name)

    def _remove_model(self, model: Model, folder: Path, trash: Path) -> None:
        mine = [version for version in model.versions.values() if version.writable]
        if not mine:
            raise ReadOnly(f"{model.path} belongs to a read-only source and cannot be removed")
        with _unused(model, mine):
            folder.rename(trash / folder.name)
            drop_measures(self._root(model.path), model.parts)
        if len(model.parts) > 1 and not folder.parent.is_symlink() and not any(folder.parent.iterdir()):
            folder.parent.rmdir()


@contextmanager
def _unused(model: Model, versions: Sequence[Version]) -> Iterator[None]:
    """Hold the locks that show that nobody has located these versions. Raises Busy."""
    with ExitStack() as held:
        for version in versions:
            lock = try_lock(version.marker, exclusive=True)
            if lock is None:
                raise Busy(f"{model.path}@{version.name} is in use; unload it first")
            held.callback(os.close, lock)
        yield


def _plain_entries(folder: Path) -> list[Path]:
    """What belongs to the plain version of a model; the marker first, so that it stops being one at once."""
    entries = [entry for entry in folder.iterdir() if entry.name not in (VERSIONS, REFS)]
    return sorted(entries, key=lambda entry: (not entry.name.endswith("config.json"), entry.name))


def _is_used(version: Version) -> bool:
    lock = try_lock(version.marker, exclusive=True)
    if lock is not None:
        os.close(lock)
    return lock is None


def _own_bytes(folder: Path) -> int:
    """The bytes of the files that no blob shares: those of the others are freed with their blobs."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(status.st_size for status in found if status.st_nlink == 1)


def _flag(options: Mapping[str, Any], name: str) -> bool:
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise BadArgument(f"{name} is {value!r}; it must be true or false", name=name, got=str(value), want="a flag")
    return value


def _text(options: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = options.get(name, default)
    if not isinstance(value, str):
        raise BadArgument(f"{name} is missing or not text", name=name, got=str(value), want="text")
    return value
