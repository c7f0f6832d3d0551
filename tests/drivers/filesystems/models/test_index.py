from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.filesystems.models import index as module
from llmos.drivers.filesystems.models.index import (
    Index, Parent, Row, add_measures, content, index_file, prune, put, put_measures, remove, writing,
)  # fmt: skip
from llmos.syscalls.errors import Unavailable


def row(path: str = "/org/m", version: str = "1", **fields: Any) -> Row:
    return Row(**{
        "path": path, "version": version, "current": True, "kind": "model", "architecture": "Llama", "parameters": 7,
        "dtype": "float32", "context": 64, "bytes": 28, "licence": "MIT", "origin": "", "created": "2026",
        "problem": "", "fields": {"a": [1]}, "tasks": ["text-generation"], "languages": ["en", "en"], "tags": ["x"],
        "parents": [Parent("/tiny", "1", "adapter", "lora", "ab")], "files": [("w", "00" * 32, 28)], "card": "words",
        **fields,
    })  # fmt: skip


@pytest.fixture
def index(tmp_path: Path) -> Any:
    made = Index(tmp_path / "cache" / "index.db")
    yield made
    made.close()


def count(index: Index) -> int:
    return int(index.use(lambda db: db.execute("SELECT count(*) FROM version").fetchone()[0]))


def add(index: Index, *rows: Row) -> None:
    def work(db: sqlite3.Connection) -> None:
        with writing(db):
            for one in rows:
                put(db, one.path, [one], {"prod": one.version})

    index.use(work)


def test_a_model_is_put_replaced_and_removed_whole(index: Index) -> None:
    add(index, row(), row("/other"))
    first = index.use(content)
    add(index, row())
    assert index.use(content) == first and count(index) == 2
    tables = {entry[0] for entry in first}
    assert tables == {*module.CONTENT, "words"}
    index.use(lambda db: remove(db, "/org/m"))
    index.use(lambda db: remove(db, "/other"))
    assert index.use(content) == set()


def test_what_was_measured_is_replaced_as_a_whole_or_added_to(index: Index) -> None:
    def values() -> list[tuple[Any, ...]]:
        return index.use(lambda db: [tuple(r) for r in db.execute("SELECT version, device, name, value FROM measure")])

    index.use(lambda db: put_measures(db, "/m", {("1", "cpu0", "load_s"): 1.0, ("1", "cpu0", "quality"): 0.1}))
    index.use(lambda db: add_measures(db, "/m", {("1", "cpu0", "load_s"): 2.0}))
    assert values() == [("1", "cpu0", "load_s", 2.0), ("1", "cpu0", "quality", 0.1)]
    index.use(lambda db: put_measures(db, "/m", {}))
    assert values() == []


def test_a_transaction_is_all_or_nothing(index: Index) -> None:
    def work(db: sqlite3.Connection) -> None:
        with writing(db):
            put(db, "/a", [row("/a")], {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        index.use(work)
    assert count(index) == 0


@pytest.mark.parametrize("damage", ["text", "cut", "dropped", "schema", "gone", "folder gone"])
def test_a_damaged_file_is_made_anew(index: Index, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "cache" / "index.db"
    add(index, *(row(f"/m{number}", card="x" * 5000) for number in range(20)))
    if damage not in ("gone", "folder gone"):
        index.close()  # writes all of it into the one file
    if damage == "text":
        file.write_text("not a database, and longer than the header of one " * 100)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:10_000])
    elif damage in ("dropped", "schema"):
        with sqlite3.connect(file) as db:
            db.execute("DROP TABLE version" if damage == "dropped" else "PRAGMA user_version = 99")
        db.close()
    else:
        for path in file.parent.iterdir():
            path.unlink()
        if damage == "folder gone":
            file.parent.rmdir()
    assert count(index) == 0
    add(index, row())
    assert count(index) == 1


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    index = Index(tmp_path / "file" / "index.db")
    add(index, row())
    assert count(index) == 1
    index.close()
    assert count(index) == 0
    index.close()


HOLDER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_writer_of_another_process_is_waited_for(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(index, row())
    index.close()
    monkeypatch.setattr(module, "BUSY_S", 0.05)
    file = str(tmp_path / "cache" / "index.db")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(Unavailable, match="in use"):
            add(index, row("/b"))
        holder.communicate("")
    add(index, row("/b"))
    assert count(index) == 2


def test_on_a_full_disk_the_index_lives_in_memory(index: Index, tmp_path: Path) -> None:
    add(index, row())
    [pages] = index.use(lambda db: db.execute("PRAGMA page_count").fetchone())
    index.use(lambda db: db.execute(f"PRAGMA max_page_count = {pages}"))
    add(index, row("/b", card=" ".join(map(str, range(100_000)))))
    assert count(index) == 1  # what was there before is indexed again by the next sync
    assert not [*(tmp_path / "cache").iterdir()]


def test_each_source_has_its_own_file(tmp_path: Path) -> None:
    roots = [[Path("/a")], [Path("/a"), Path("/b")], [Path("/b"), Path("/a")]]
    assert len({index_file(tmp_path, each) for each in roots}) == 3


def test_without_fts5_the_words_are_kept_all_the_same(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.db", fts5=False)
    add(index, row())
    assert not index.fts5 and ("words", "/org/m@1", "/org/m", "Llama", "text-generation", "en en", "x", "words") in (
        index.use(content)
    )
    index.close()
    again = Index(tmp_path / "index.db")
    assert count(again) == 1 and not again.fts5
    again.close()


def test_indexes_that_nobody_writes_any_more_are_removed(index: Index, tmp_path: Path) -> None:
    add(index, row())
    cache = tmp_path / "cache"
    for name in ("index-old.db", "index-old.db-wal", "index-new.db", "index-live.db", "index-live.db-wal", "other.db"):
        (cache / name).touch()
        if "new" not in name and name != "index-live.db-wal":
            os.utime(cache / name, (0, 0))
    assert prune(cache) == 1
    assert {path.name for path in cache.iterdir()} >= {"index-new.db", "index-live.db", "other.db", "index.db"}
    assert not [*cache.glob("index-old*")]
