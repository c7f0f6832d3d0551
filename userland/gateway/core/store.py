"""What the gateway keeps for its keys beside them, in the same file: uploaded files, tuning jobs, stored responses.

Each row belongs to one key; a key finds only its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from llmos.syscalls.errors import BadState, Unavailable

from .keys import open_database

RESPONSES = 1000
"""So many responses of a key are kept, the newest."""


class StoredFile(NamedTuple):
    """A file that a key uploaded; `path` is that of the namespace."""

    id: str
    key: str
    filename: str
    purpose: str
    bytes: int
    path: str
    created: float
    sha256: str


class Job(NamedTuple):
    """A tuning job: the task that does it, and the body that asked for it (JSON)."""

    id: str
    key: str
    task: str
    body: str
    created: float


class StoredResponse(NamedTuple):
    """A response (JSON), and the chat that led to it with its answer (JSON)."""

    id: str
    key: str
    body: str
    messages: str
    created: float


class Store:
    """The tables. For one thread at a time.

    Raises:
        BadState: the file is damaged; Unavailable: it is locked. Any method may raise these.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_database(path)

    def add_file(self, row: StoredFile) -> None:
        self._write("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def file(self, key: str, id: str) -> StoredFile | None:
        found = self._rows("SELECT * FROM files WHERE key = ? AND id = ?", (key, id))
        return StoredFile._make(found[0]) if found else None

    def files(self, key: str, purpose: str = "") -> list[StoredFile]:
        """The newest first."""
        rows = self._rows("SELECT * FROM files WHERE key = ? ORDER BY created DESC, rowid DESC", (key,))
        return [StoredFile._make(row) for row in rows if purpose in ("", row[3])]

    def remove_file(self, key: str, id: str) -> None:
        self._write("DELETE FROM files WHERE key = ? AND id = ?", (key, id))

    def add_job(self, row: Job) -> None:
        self._write("INSERT INTO jobs VALUES (?, ?, ?, ?, ?)", row)

    def job(self, key: str, id: str) -> Job | None:
        found = self._rows("SELECT * FROM jobs WHERE key = ? AND id = ?", (key, id))
        return Job._make(found[0]) if found else None

    def jobs(self, key: str) -> list[Job]:
        """The newest first."""
        return [Job._make(row) for row in self._rows("SELECT * FROM jobs WHERE key = ? ORDER BY created DESC", (key,))]

    def add_response(self, row: StoredResponse) -> None:
        """Keep a response; the oldest ones of the key leave when there are too many."""
        self._write("INSERT INTO responses VALUES (?, ?, ?, ?, ?)", row)
        self._write(
            "DELETE FROM responses WHERE key = ?1 AND id NOT IN "
            "(SELECT id FROM responses WHERE key = ?1 ORDER BY created DESC, rowid DESC LIMIT ?2)",
            (row.key, RESPONSES),
        )

    def response(self, key: str, id: str) -> StoredResponse | None:
        found = self._rows("SELECT * FROM responses WHERE key = ? AND id = ?", (key, id))
        return StoredResponse._make(found[0]) if found else None

    def remove_response(self, key: str, id: str) -> None:
        self._write("DELETE FROM responses WHERE key = ? AND id = ?", (key, id))

    def close(self) -> None:
        self._connection.close()

    def _rows(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._typed():
            return self._connection.execute(query, values).fetchall()

    def _write(self, query: str, values: tuple[object, ...]) -> None:
        with self._typed():
            self._connection.execute(query, values)

    @contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise Unavailable(f"{self._path} is locked by another process", retry_after_ms=1000) from None
            raise BadState(f"{self._path}: {error}") from None
