"""Files, jobs and responses of a key: only its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llmos.syscalls.errors import BadState, Unavailable
from llmos.userland.gateway.core import store as module
from llmos.userland.gateway.core.store import Job, Store, StoredFile, StoredResponse


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with closing(Store(folder / "gateway.db")) as made:
        yield made


def file(id: str, key: str = "a", purpose: str = "batch", created: float = 1.0) -> StoredFile:
    return StoredFile(id, key, "x.txt", purpose, 3, f"/home/keys/{key}/x.txt", created, "00")


def test_files(store: Store) -> None:
    for row in (file("one"), file("two", purpose="vision", created=2.0), file("three", key="b")):
        store.add_file(row)
    assert [row.id for row in store.files("a")] == ["two", "one"]
    assert [row.id for row in store.files("a", "vision")] == ["two"]
    assert store.file("a", "one") == file("one") and store.file("b", "one") is None
    store.remove_file("b", "one")
    assert store.file("a", "one") is not None
    store.remove_file("a", "one")
    assert store.file("a", "one") is None


def test_jobs(store: Store) -> None:
    store.add_job(Job("j1", "a", "t-1", "{}", 1.0))
    store.add_job(Job("j2", "a", "t-2", "{}", 2.0))
    assert [job.id for job in store.jobs("a")] == ["j2", "j1"] and store.jobs("b") == []
    assert store.job("a", "j1") == Job("j1", "a", "t-1", "{}", 1.0) and store.job("b", "j1") is None


def test_only_the_newest_responses_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESPONSES", 2)
    for number in range(4):
        store.add_response(StoredResponse(f"r{number}", "a", "{}", "[]", float(number)))
    store.add_response(StoredResponse("other", "b", "{}", "[]", 0.0))
    assert [store.response("a", f"r{number}") is not None for number in range(4)] == [False, False, True, True]
    assert store.response("b", "other") is not None and store.response("a", "other") is None
    store.remove_response("a", "r3")
    assert store.response("a", "r3") is None


def test_what_sqlite_says_is_typed(store: Store, folder: Path) -> None:
    store._connection.execute("PRAGMA busy_timeout=0")
    with closing(sqlite3.connect(folder / "gateway.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable):
            store.add_file(file("late"))
        other.execute("ROLLBACK")
        other.execute("DROP TABLE files")
    with pytest.raises(BadState):
        store.files("a")
