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
) STRICT;
CREATE INDEX IF NOT EXISTS journal_about ON journal (about, seq);
"""
_WAIT_S = 0.05


class Store:
    """An open journal file."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Open or create the file; a file that is no database is moved aside, and `damaged` says where to.

        Raises:
            OSError: it cannot be opened or created, or another process has it open.
        """
        self.damaged: Path | None = None
        self._max_bytes = max_bytes
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self._db = _connect(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self.damaged = path.with_name(path.name + ".damaged")
                path.replace(self.damaged)
                self._db = _connect(path)
            (last,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM journal").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise OSError(f"{path}: {error}") from error
        self.last: int = last
        """The newest sequence number in the file."""

    def append(self, records: Sequence[Record]) -> None:
        """Add records in one transaction, then drop the oldest tenth if the file exceeds its bound. Raises OSError."""
        rows = [
            (r.seq, r.at, r.unit, r.level, r.about, r.text, json.encode(r.fields), json.encode(r.reasons))
            for r in records
        ]
        try:
            with self._db:
                self._db.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self.last = records[-1].seq
            if self._used() > self._max_bytes:
                self._prune()
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
        where = f"seq > ? AND seq < ? AND level IN ({marks})" + (" AND about = ?" if about else "")
        order = "DESC" if newest else "ASC"
        query = f"SELECT * FROM journal WHERE {where} ORDER BY seq {order} LIMIT ?"
        values = [after, before, *levels, *([about] if about else []), limit]
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

    def _prune(self) -> None:
        (first,) = self._db.execute("SELECT min(seq) FROM journal").fetchone()
        with self._db:
            self._db.execute("DELETE FROM journal WHERE seq < ?", (first + max((self.last - first) // 10, 1),))


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_WAIT_S)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        db.executescript(_SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _record(row: tuple[int, float, str, str, str, str, bytes, bytes]) -> Record:
    seq, at, unit, level, about, text, fields, reasons = row
    return Record(
        seq=seq, at=at, unit=unit, level=level, about=about, text=text, fields=json.decode(fields),
        reasons=json.decode(reasons, type=list[Reason]),
    )  # fmt: skip
