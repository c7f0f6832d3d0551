"""The journal's SQLite file: append in batches, read by sequence number, never larger than its bound.

WAL with synchronous=NORMAL: a crash of the machine may lose the last second, never the file. One process at a time
has it open, since two would give out the same sequence numbers. Whatever goes wrong is an OSError that says what.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from msgspec import json

from llmos.syscalls.types import Reason, Record

_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, unit TEXT NOT NULL, level TEXT NOT NULL, about TEXT NOT NULL,
    text TEXT NOT NULL, fields BLOB NOT NULL, reasons BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS journal_about ON journal (about, seq);
CREATE TABLE IF NOT EXISTS also (about TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (about, seq)) WITHOUT ROWID;
"""
_WAIT_S = 0.05


class Store:
    """An open journal file."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Open or create the file; one that is no journal is moved aside, and `damaged` says where to.

        `last` is the newest sequence number in the file when it was opened; `max_bytes` bounds its size, roughly.

        Raises:
            OSError: it cannot be opened or created, or another process has it open.
        """
        self.damaged: Path | None = None
        self._max_bytes = max_bytes
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self._db, self.last = _open(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                # SQLite itself drops the write-ahead log that a new, empty file finds beside it.
                self.damaged = path.replace(path.with_name(path.name + ".damaged"))
                self._db, self.last = _open(path)
        except (sqlite3.Error, OSError) as error:
            raise OSError(f"{path}: {error}") from error

    def append(self, records: Sequence[Record]) -> None:
        """Add records in one transaction; above the bound twice as many of the oldest leave. Raises OSError."""
        rows = [
            (r.seq, r.at, r.unit, r.level, r.about, r.text, json.encode(r.fields), json.encode(r.reasons))
            for r in records
        ]
        also = [(id, record.seq) for record in records for id in record.fields.get("also", ())]
        try:
            with self._db:
                self._db.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
                self._db.executemany("INSERT OR IGNORE INTO also VALUES (?, ?)", also)
                if self._used() > self._max_bytes:
                    oldest = "SELECT seq FROM journal ORDER BY seq LIMIT ?"
                    self._db.execute(f"DELETE FROM journal WHERE seq IN ({oldest})", (2 * len(rows),))
                    self._db.execute("DELETE FROM also WHERE seq < (SELECT min(seq) FROM journal)")
        except sqlite3.Error as error:
            raise OSError(str(error)) from error

    def read(
        self, after: int, before: int, about: str, levels: Sequence[str], limit: int, newest: bool
    ) -> list[Record]:
        """Records between two sequence numbers (both exclusive), oldest first; with `newest` the last `limit` of them.

        Raises:
            OSError: the file cannot be read.
        """
        marks = ", ".join("?" * len(levels))
        where = f"seq > ? AND seq < ? AND level IN ({marks})"
        if about:
            where += " AND (about = ? OR seq IN (SELECT seq FROM also WHERE about = ?))"
        order = "DESC" if newest else "ASC"
        query = f"SELECT * FROM journal WHERE {where} ORDER BY seq {order} LIMIT ?"
        values = [after, before, *levels, *([about, about] if about else []), limit]
        try:
            found = self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise OSError(str(error)) from error
        return [_record(row) for row in (reversed(found) if newest else found)]

    def close(self) -> None:
        """Close the file; its write-ahead log goes with it."""
        self._db.close()

    def _used(self) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (unused,) = self._db.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        return int((pages - unused) * size)


def _open(path: Path) -> tuple[sqlite3.Connection, int]:
    """The open file and its newest sequence number."""
    path.touch(mode=0o600)
    db = sqlite3.connect(path, timeout=_WAIT_S)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        db.executescript(_SCHEMA)
        (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM journal").fetchone()
    except sqlite3.Error:
        db.close()
        raise
    return db, int(last)


def _record(row: tuple[int, float, str, str, str, str, bytes, bytes]) -> Record:
    seq, at, unit, level, about, text, fields, reasons = row
    return Record(
        seq=seq, at=at, unit=unit, level=level, about=about, text=text, fields=json.decode(fields),
        reasons=json.decode(reasons, type=list[Reason]),
    )  # fmt: skip
