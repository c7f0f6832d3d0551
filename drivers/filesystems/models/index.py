"""What is known of all models of a source, in one SQLite file that can be deleted at any time.

It lies in the driver's cache, so it also covers folders that cannot be written. Readers and writers of several
processes share it (write-ahead log). A file that is damaged, of another schema, or gone is made anew.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from llmos.syscalls.errors import Unavailable

SCHEMA = 2
BUSY_S = 5.0
MAPPED = 256 << 20
CACHED_KIB = 8192
"""Of the file in memory: a search over ten thousand models touches most of its pages."""
DAMAGED = frozenset({
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_ERROR,
})  # fmt: skip
"""Results after which the file is made anew: SQLITE_ERROR is a table that somebody dropped."""
TABLES = """
CREATE TABLE version (id INTEGER PRIMARY KEY, path TEXT NOT NULL, short TEXT NOT NULL, version TEXT NOT NULL,
  current INTEGER NOT NULL, kind TEXT NOT NULL, architecture TEXT NOT NULL, parameters INTEGER NOT NULL,
  dtype TEXT NOT NULL, context INTEGER NOT NULL, bytes INTEGER NOT NULL, licence TEXT NOT NULL, origin TEXT NOT NULL,
  created TEXT NOT NULL, problem TEXT NOT NULL, fields TEXT NOT NULL, UNIQUE (path, version));
CREATE INDEX version_short ON version (short, current);
CREATE INDEX version_created ON version (current, created DESC, path);
CREATE INDEX version_bytes ON version (current, bytes, path);
CREATE INDEX version_path ON version (current, path, id);
CREATE TABLE task (version_id INTEGER NOT NULL REFERENCES version ON DELETE CASCADE, value TEXT NOT NULL,
  PRIMARY KEY (version_id, value)) WITHOUT ROWID;
CREATE TABLE language (version_id INTEGER NOT NULL REFERENCES version ON DELETE CASCADE, value TEXT NOT NULL,
  PRIMARY KEY (version_id, value)) WITHOUT ROWID;
CREATE TABLE tag (version_id INTEGER NOT NULL REFERENCES version ON DELETE CASCADE, value TEXT NOT NULL,
  PRIMARY KEY (version_id, value)) WITHOUT ROWID;
CREATE TABLE alias (path TEXT NOT NULL, value TEXT NOT NULL, version TEXT NOT NULL,
  PRIMARY KEY (path, value)) WITHOUT ROWID;
CREATE TABLE parent (version_id INTEGER NOT NULL REFERENCES version ON DELETE CASCADE, path TEXT NOT NULL,
  version TEXT NOT NULL, how TEXT NOT NULL, recipe TEXT NOT NULL, data_sha256 TEXT NOT NULL);
CREATE INDEX parent_of ON parent (path, version);
CREATE INDEX parent_by ON parent (version_id);
CREATE TABLE blob (version_id INTEGER NOT NULL REFERENCES version ON DELETE CASCADE, file TEXT NOT NULL,
  sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (version_id, file)) WITHOUT ROWID;
CREATE INDEX blob_by ON blob (sha256);
CREATE TABLE measure (path TEXT NOT NULL, version TEXT NOT NULL, device TEXT NOT NULL, name TEXT NOT NULL,
  value REAL NOT NULL, PRIMARY KEY (path, version, device, name)) WITHOUT ROWID;
CREATE TABLE folder (path TEXT PRIMARY KEY, stamp TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
PREFIX = "index-"
UNUSED_S = 30 * 86400.0
"""An index that was not written for so long is removed by gc; using it again makes it again."""
WORDS = ("path", "architecture", "tasks", "languages", "tags", "card")
WEIGHTS = (8, 3, 3, 1, 4, 1)
"""How much a word counts in each of them (bm25)."""
_WITH_FTS5 = f"""
CREATE VIRTUAL TABLE words USING fts5 ({", ".join(WORDS)}, tokenize='unicode61 remove_diacritics 2', prefix='2 3');
INSERT INTO words (words, rank) VALUES ('rank', 'bm25({", ".join(map(str, WEIGHTS))})');
"""
_WITHOUT_FTS5 = f"CREATE TABLE words (rowid INTEGER PRIMARY KEY, {', '.join(f'{name} TEXT' for name in WORDS)});"
CONTENT = ("version", "task", "language", "tag", "alias", "parent", "blob")

T = TypeVar("T")
Measures = dict[tuple[str, str, str], float]
"""Values by version, device and name."""


@dataclass(frozen=True)
class Parent:
    """What a version was made from: `how` is the relation, `recipe` and `data_sha256` how to repeat it."""

    path: str
    version: str
    how: str = ""
    recipe: str = ""
    data_sha256: str = ""


@dataclass(frozen=True)
class Row:
    """One version of a model, as the index keeps it."""

    path: str
    version: str
    current: bool
    kind: str
    architecture: str
    parameters: int
    dtype: str
    context: int
    bytes: int
    licence: str
    origin: str
    created: str
    problem: str
    fields: dict[str, Any]
    tasks: Sequence[str] = ()
    languages: Sequence[str] = ()
    tags: Sequence[str] = ()
    parents: Sequence[Parent] = ()
    files: Sequence[tuple[str, str, int]] = ()
    """Name, sha256 and bytes of each file whose hash is known."""
    card: str = field(default="", repr=False)
    quality: float | None = None
    """What its manifest's metrics say, from 0 to 1."""

    @property
    def short(self) -> str:
        return self.path.rpartition("/")[2].casefold()


class Index:
    """The file, opened when it is first used. All methods belong to one thread at a time."""

    def __init__(self, path: Path, fts5: bool = True) -> None:
        self._path = path
        self._wanted_fts5 = fts5
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self.fts5 = fts5
        """Whether this SQLite has the word index; without it words are looked for one by one."""

    def use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the open file; if that turns out to be damaged, on a new and empty one.

        On a full disk the index lives in memory, until the file is opened by the next process.

        Raises:
            Unavailable: another process has been writing for `BUSY_S` seconds.
        """
        try:
            return work(self._open())
        except sqlite3.DatabaseError as error:
            code = _code(error)
            if code not in DAMAGED and code != sqlite3.SQLITE_FULL:
                text = f"the index of the models ({self._path}) is in use: {error}; ask again"
                raise Unavailable(text, retry_after_ms=1000) from error
        self.discard()
        if code == sqlite3.SQLITE_FULL:
            self._connection, self._inode = self._prepare(":memory:"), _inode(self._path)
        return work(self._open())

    def discard(self) -> None:
        """Throw the file away; the next use makes a new one."""
        self.close()
        for ending in ("", "-wal", "-shm"):
            with suppress(OSError):
                self._path.with_name(self._path.name + ending).unlink()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and _inode(self._path) == self._inode:
            return self._connection
        self.close()
        self._connection = self._connect()
        self._inode = _inode(self._path)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._prepare(str(self._path))
        except (sqlite3.DatabaseError, OSError) as error:
            if isinstance(error, sqlite3.DatabaseError) and _code(error) not in DAMAGED:
                raise
        self.discard()
        try:
            return self._prepare(str(self._path))
        except sqlite3.DatabaseError:
            return self._prepare(":memory:")  # a cache that cannot be written: the index lives as long as this process

    def _prepare(self, name: str) -> sqlite3.Connection:
        made = sqlite3.connect(name, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            made.row_factory = sqlite3.Row
            made.execute("PRAGMA foreign_keys = ON")
            made.execute("PRAGMA journal_mode = WAL")
            made.execute("PRAGMA synchronous = NORMAL")
            made.execute(f"PRAGMA mmap_size = {MAPPED}")
            made.execute(f"PRAGMA cache_size = -{CACHED_KIB}")
            with writing(made):
                self._make_tables(made)
            self.fts5 = _has_fts5(made)
        except BaseException:
            made.close()
            raise
        return made

    def _make_tables(self, made: sqlite3.Connection) -> None:
        [schema] = made.execute("PRAGMA user_version").fetchone()
        if schema == SCHEMA:
            return
        if schema != 0:
            raise sqlite3.DatabaseError(f"schema {schema}")
        for statement in TABLES.split(";"):
            made.execute(statement)
        for statement in self._word_table(made).strip().split(";"):
            made.execute(statement)
        made.execute(f"PRAGMA user_version = {SCHEMA}")

    def _word_table(self, made: sqlite3.Connection) -> str:
        options = {name for [name] in made.execute("PRAGMA compile_options")}
        return _WITH_FTS5 if self._wanted_fts5 and "ENABLE_FTS5" in options else _WITHOUT_FTS5


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; waits for a writer of another process."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.rollback()
        raise
    db.commit()


def put(db: sqlite3.Connection, path: str, rows: Sequence[Row], aliases: dict[str, str]) -> None:
    """Replace all that is known of a model."""
    remove(db, path)
    for row in rows:
        _insert(db, row)
    db.executemany("INSERT INTO alias VALUES (?, ?, ?)", [(path, name, version) for name, version in aliases.items()])


def remove(db: sqlite3.Connection, path: str) -> None:
    """Forget a model."""
    for [id] in db.execute("SELECT id FROM version WHERE path = ?", (path,)).fetchall():
        db.execute("DELETE FROM words WHERE rowid = ?", (id,))
    db.execute("DELETE FROM version WHERE path = ?", (path,))
    db.execute("DELETE FROM alias WHERE path = ?", (path,))


def put_measures(db: sqlite3.Connection, path: str, values: Measures) -> None:
    """Replace what was measured of a model."""
    db.execute("DELETE FROM measure WHERE path = ?", (path,))
    add_measures(db, path, values)


def add_measures(db: sqlite3.Connection, path: str, values: Measures) -> None:
    """Add to what was measured of a model, or replace it value by value."""
    rows = [(path, *key, value) for key, value in values.items()]
    db.executemany("INSERT OR REPLACE INTO measure VALUES (?, ?, ?, ?, ?)", rows)


def content(db: sqlite3.Connection) -> set[tuple[Any, ...]]:
    """All that is derived from the models, without row numbers: equal for two indexes that say the same."""
    names = {id: f"{path}@{version}" for id, path, version in db.execute("SELECT id, path, version FROM version")}
    found: set[tuple[Any, ...]] = set()
    for table in CONTENT:
        cursor = db.execute(f"SELECT * FROM {table}")
        keys = [column[0] for column in cursor.description]
        for row in cursor:
            pairs = zip(keys, row, strict=True)
            found.add((table, *(names[value] if key in ("id", "version_id") else value for key, value in pairs)))
    for row in db.execute(f"SELECT rowid, {', '.join(WORDS)} FROM words"):
        found.add(("words", names.get(row[0], "nobody"), *row[1:]))
    return found


def prune(cache: Path, older_s: float = UNUSED_S) -> int:
    """Remove the indexes of sources that nothing has changed in for so many seconds; how many."""
    limit = time.time() - older_s
    old = [file for file in cache.glob(f"{PREFIX}*.db") if _last_written(file) < limit]
    for file in old:
        for ending in ("", "-wal", "-shm"):
            with suppress(OSError):
                file.with_name(file.name + ending).unlink()
    return len(old)


def index_file(cache: Path, roots: Sequence[Path]) -> Path:
    """Where the index of these folders lies in a cache."""
    name = hashlib.sha256("\0".join(map(str, roots)).encode(errors="surrogateescape")).hexdigest()[:16]
    return cache / f"{PREFIX}{name}.db"


def _last_written(file: Path) -> float:
    written = [path.stat().st_mtime for path in (file, file.with_name(f"{file.name}-wal")) if path.exists()]
    return max(written, default=0.0)


def _insert(db: sqlite3.Connection, row: Row) -> None:
    values = (
        row.path, row.short, row.version, row.current, row.kind, row.architecture, row.parameters, row.dtype,
        row.context, row.bytes, row.licence, row.origin, row.created, row.problem,
        json.dumps(row.fields, ensure_ascii=False),
    )  # fmt: skip
    marks = ", ".join("?" * len(values))
    id = db.execute(f"INSERT INTO version VALUES (NULL, {marks})", values).lastrowid
    for table, found in (("task", row.tasks), ("language", row.languages), ("tag", row.tags)):
        db.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", [(id, value) for value in found])
    for parent in row.parents:
        origin = (id, parent.path, parent.version, parent.how, parent.recipe, parent.data_sha256)
        db.execute("INSERT INTO parent VALUES (?, ?, ?, ?, ?, ?)", origin)
    db.executemany("INSERT INTO blob VALUES (?, ?, ?, ?)", [(id, *file) for file in row.files])
    words = (row.path, row.architecture, " ".join(row.tasks), " ".join(row.languages), " ".join(row.tags), row.card)
    db.execute(f"INSERT INTO words (rowid, {', '.join(WORDS)}) VALUES (?, ?, ?, ?, ?, ?, ?)", (id, *words))


def _has_fts5(db: sqlite3.Connection) -> bool:
    [sql] = db.execute("SELECT sql FROM sqlite_master WHERE name = 'words'").fetchone()
    return "VIRTUAL" in sql


def _code(error: sqlite3.DatabaseError) -> int:
    """The primary result code; that of a damaged file where there is none."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)) & 0xFF


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
