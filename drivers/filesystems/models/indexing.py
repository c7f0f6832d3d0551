"""Keeping the index true without looking at every model for every search.

What the drivers change is in the log of changes; what people drop into a folder or take away moves its time. The top
folders and the log are looked at before each search, all other folders in turn, some per search, and all of them when
the index is first used by a process.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from llmos.drivers.contract import ProgressSink
from llmos.syscalls.errors import BadModel

from ..paths import Parts, is_text, join
from . import index as tables
from .card import read_card
from .changes import Mark, since
from .derive import ADAPTER, CONFIG
from .describe import SHOWN, Described, Describer
from .index import Index, Parent, Row, writing
from .measured import measures_file, read_measures
from .scan import MANIFEST, REFS, VERSIONS
from .store import Layer, Model, Store

IN_TURN = 32
"""Folders looked at per search, beside the top ones."""
BATCH = 32
"""Models described per transaction."""
BUDGET_S = 0.05
"""After so long a search stops renewing an index that was complete before; one batch is always done."""
STAMPED = ("", VERSIONS, REFS, CONFIG, ADAPTER, MANIFEST, "README.md")
"""What is looked at in a model's folder to see whether it changed; versions are never changed inside."""
QUALITY = ("quality", "accuracy", "exact_match", "f1")
"""Metrics of a manifest that count as its quality, from 0 to 1; the first one that is there."""


class Indexer:
    """Renews the index of one store."""

    def __init__(
        self, store: Store, describer: Describer, index: Index, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._describer, self._index, self._clock = store, describer, index, clock
        self._pending: dict[str, None] = {}
        self._turn: list[str] | None = None

    def sync(self, progress: ProgressSink | None = None, patient: bool = True) -> int:
        """Bring the index up to date; how many folders are still to be looked at, when there was no time for all.

        An index that was never complete is waited for, if the caller is `patient`.
        """
        return self._index.use(lambda db: self._sync(db, progress, patient))

    def rebuild(self, progress: ProgressSink | None = None) -> int:
        """Make the index anew from the models; how many of its entries were wrong. What was measured is kept."""
        self.sync(progress)
        before = self._index.use(tables.content)

        def work(db: sqlite3.Connection) -> int:
            with writing(db):
                for table in ("folder", "meta"):
                    db.execute(f"DELETE FROM {table}")
                for [path] in db.execute("SELECT DISTINCT path FROM version").fetchall():
                    tables.remove(db, path)
            self._pending.clear()
            self._turn = None
            self._sync(db, progress, True)
            return len(before ^ tables.content(db))

        return self._index.use(work)

    def _sync(self, db: sqlite3.Connection, progress: ProgressSink | None, patient: bool) -> int:
        complete = _meta(db, "complete") == "yes"
        hurried = complete or not patient
        started = self._clock()
        self._suspect(db)
        done = 0
        while self._pending:
            if hurried and done and self._clock() - started > BUDGET_S:
                return len(self._pending)
            batch = [*islice(self._pending, BATCH)]
            with writing(db):
                for path in batch:
                    self._renew(db, path)
            for path in batch:
                self._pending.pop(path, None)
            done += len(batch)
            if progress is not None:
                progress(done, done + len(self._pending), "models", "index")
        if not complete:
            with writing(db):
                _set_meta(db, "complete", "yes")
        return 0

    # ---- what may have changed

    def _suspect(self, db: sqlite3.Connection) -> None:
        """Find out what must be looked at again, and keep that in the file, in case this process dies before."""
        if self._store.single:
            if _stamp(self._store.layers, ()) != _known(db, "/"):
                self._pending["/"] = None
            return
        everything = self._turn is None
        for place, layer in enumerate(self._store.layers):
            mark = Mark.parse(_meta(db, f"log {place}"))
            noted, new = since(layer.root, mark)
            everything = everything or noted is None
            if new != mark:
                with writing(db):
                    self._doubt(db, noted or ())
                    _set_meta(db, f"log {place}", str(new))
        if everything or _stamp(self._store.layers, (), ("",)) != _known(db, "/"):
            with writing(db):
                self._list(db, ())
        for path in self._due(db, everything):
            if _stamp(self._store.layers, _parts(path)) != _known(db, path):
                self._pending[path] = None

    def _doubt(self, db: sqlite3.Connection, paths: Iterable[str]) -> None:
        for path in paths:
            self._pending[path] = None
            _set_known(db, path, "")

    def _due(self, db: sqlite3.Connection, everything: bool) -> list[str]:
        if everything or not self._turn:
            self._turn = [path for [path] in db.execute("SELECT path FROM folder WHERE path != '/'")]
        count = len(self._turn) if everything else IN_TURN
        due, self._turn = self._turn[:count], self._turn[count:]
        return due

    def _list(self, db: sqlite3.Connection, parts: Parts) -> None:
        """Compare the names in a folder of models with those that are known."""
        prefix = join(parts).rstrip("/") + "/"
        stamp = _stamp(self._store.layers, parts, STAMPED if parts else ("",))
        there = {prefix + name for name in _names(self._store.layers, parts)}
        rows = db.execute("SELECT path FROM folder WHERE path > ? AND path < ?", (prefix, prefix[:-1] + "0"))
        known = {path for [path] in rows if path.count("/") == prefix.count("/")}
        self._doubt(db, sorted(there ^ known))
        _set_known(db, join(parts), stamp)

    # ---- one folder

    def _renew(self, db: sqlite3.Connection, path: str) -> None:
        parts = _parts(path)
        stamp = _stamp(self._store.layers, parts)  # from before it is read: what changes meanwhile is seen next time
        try:
            model = self._store.model(parts)
            rows = [] if model is None else [*self._rows(model)]
        except OSError:
            return  # it goes away just now, or cannot be read: looked at again in its turn
        if model is None:
            exists = _is_there(stamp)
            self._forget(db, path, below=not exists)
            db.execute("DELETE FROM measure WHERE path = ?", (path,))
            if exists and len(parts) == 1:
                self._list(db, parts)
            elif exists:
                _set_known(db, path, stamp)
            return
        self._forget(db, path, below=True)
        tables.put(db, path, rows, dict(model.refs.aliases))
        measures = self._measures(db, model, rows)
        tables.put_measures(db, path, measures)
        _set_known(db, path, stamp)

    def _forget(self, db: sqlite3.Connection, path: str, below: bool) -> None:
        tables.remove(db, path)
        db.execute("DELETE FROM folder WHERE path = ?", (path,))
        if below and path != "/":
            inside = (path + "/", path + "0")
            for [child] in db.execute("SELECT path FROM folder WHERE path > ? AND path < ?", inside).fetchall():
                tables.remove(db, child)
            db.execute("DELETE FROM folder WHERE path > ? AND path < ?", inside)

    def _measures(self, db: sqlite3.Connection, model: Model, rows: Iterable[Row]) -> tables.Measures:
        found: tables.Measures = {}
        for row in db.execute("SELECT * FROM measure WHERE path = ?", (model.path,)):
            found[row["version"], row["device"], row["name"]] = row["value"]
        for layer in reversed(self._store.layers):
            found.update(read_measures(layer.root, model.parts))
        for version in rows:
            if version.quality is not None:
                found.setdefault((version.version, "", "quality"), version.quality)
        return {key: value for key, value in found.items() if key[0] in model.versions}

    def _rows(self, model: Model) -> Iterator[Row]:
        for version in model.versions.values():
            with suppress(FileNotFoundError):  # removed just now
                described = self._describer.describe(model, version)
                yield row_of(model, described, model.refs.tags.get(version.name, ()))


def row_of(model: Model, described: Described, tags: Iterable[str]) -> Row:
    """What the index keeps of a version."""
    manifest = described.manifest
    problem: BadModel | None = model.problem or described.problem
    readme = described.files.get("README.md")
    return Row(
        path=described.path,
        version=described.version,
        current=described.version == model.current,
        kind="adapter" if CONFIG not in described.files and ADAPTER in described.files else "model",
        architecture=_text(manifest.get("architecture")),
        parameters=_number(manifest.get("parameters")),
        dtype=_text(manifest.get("dtype")),
        context=_number(manifest.get("context")),
        bytes=described.bytes,
        licence=_text(manifest.get("licence")),
        origin=_text(manifest.get("origin")),
        created=_text(manifest.get("created")),
        problem="" if problem is None else str(problem),
        fields={name: manifest[name] for name in SHOWN if name in manifest},
        tasks=texts(manifest.get("tasks")),
        languages=texts(manifest.get("languages")),
        tags=sorted({*texts(manifest.get("tags")), *tags}),
        parents=[*parents_of(manifest)],
        files=[*_hashed(manifest)],
        card="" if readme is None else read_card(readme.path).text,
        quality=_quality(manifest.get("metrics")),
    )


def parents_of(manifest: Any) -> Iterator[Parent]:
    """What a manifest says it was made from; entries that are not maps are left out."""
    listed = manifest.get("parents")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("path"), str):
            rest = (_text(entry.get(name)) for name in ("version", "how", "recipe", "data_sha256"))
            yield Parent(entry["path"], *rest)


def _hashed(manifest: Any) -> Iterator[tuple[str, str, int]]:
    for entry in manifest.get("files") or ():
        if isinstance(entry, dict) and entry.get("sha256"):
            yield _text(entry.get("name")), _text(entry["sha256"]), _number(entry.get("bytes"))


def _quality(metrics: Any) -> float | None:
    for name in QUALITY if isinstance(metrics, dict) else ():
        value = metrics.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
            return float(value)
    return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return "" if value is None else str(value)


def texts(value: Any) -> list[str]:
    """A list of a manifest as texts; none for anything else."""
    return [_text(item) for item in value] if isinstance(value, list) else []


def _number(value: Any) -> int:
    return min(value, (1 << 63) - 1) if type(value) is int and value > 0 else 0


def _parts(path: str) -> Parts:
    return tuple(name for name in path.split("/") if name)


def _stamp(layers: Iterable[Layer], parts: Parts, names: Iterable[str] = STAMPED) -> str:
    """What a folder looks like from outside, over all layers; a layer that has it not begins with `-`."""
    found = []
    for layer in layers:
        folder = f"{layer.root}{join(parts)}"
        own = _stamp_of(folder)
        inside = [_stamp_of(f"{folder}/{name}") if name else own for name in names] if own != "-" else ["-"]
        if names is STAMPED:
            inside.append(_stamp_of(str(measures_file(layer.root, parts))))
        found.append(",".join(inside))
    return ";".join(found)


def _is_there(stamp: str) -> bool:
    return any(not layer.startswith("-") for layer in stamp.split(";"))


def _stamp_of(path: str) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116 - thousands of these are called for one search
    except OSError:
        return "-"
    return f"{status.st_mtime_ns:x}.{status.st_ino:x}"


def _names(layers: Iterable[Layer], parts: Parts) -> set[str]:
    """The folders directly inside a folder of models that may be models."""
    found: set[str] = set()
    for layer in layers:
        with suppress(OSError), os.scandir(layer.root.joinpath(*parts)) as entries:
            for entry in entries:
                name = entry.name
                if not name.startswith(".") and "@" not in name and is_text(name) and entry.is_dir():
                    found.add(name)
    return found


def _known(db: sqlite3.Connection, path: str) -> str:
    found = db.execute("SELECT stamp FROM folder WHERE path = ?", (path,)).fetchone()
    return "" if found is None else str(found[0])


def _set_known(db: sqlite3.Connection, path: str, stamp: str) -> None:
    db.execute("INSERT OR REPLACE INTO folder VALUES (?, ?)", (path, stamp))


def _meta(db: sqlite3.Connection, key: str) -> str:
    found = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return "" if found is None else str(found[0])


def _set_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
