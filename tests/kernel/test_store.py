"""The journal's file: order, bound, damage, two writers."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from llmos.kernel.store import Store
from llmos.syscalls.types import Reason, Record

MIB = 1 << 20


def records(first: int, last: int, about: str = "", text: str = "x") -> list[Record]:
    return [
        Record(seq=n, at=float(n), unit="u", level="info" if n % 2 else "error", about=about, text=text)
        for n in range(first, last + 1)
    ]


def seqs(found: list[Record]) -> list[int]:
    return [r.seq for r in found]


ALL = ("debug", "info", "warning", "error")


def test_a_record_comes_back_whole(folder: Path) -> None:
    store = Store(folder / "sub" / "journal.db", MIB)
    whole = Record(
        seq=1, at=1.5, unit="model", level="info", about="m1", text="é", fields={"n": 5, "list": [1, {"a": None}]},
        reasons=[Reason(code="c", text="t", numbers={"a": 1, "b": "x"}, rule="r", at=2.5)],
    )  # fmt: skip
    store.append([whole])
    assert store.read(0, 9, "", ALL, 10, newest=False) == [whole]
    store.close()
    again = Store(folder / "sub" / "journal.db", MIB)
    assert again.last == 1 and again.damaged is None
    assert again.read(0, 9, "m1", ALL, 10, newest=True) == [whole]
    again.close()


def test_reading_a_part(folder: Path) -> None:
    store = Store(folder / "j.db", MIB)
    store.append(records(1, 10))
    store.append(records(11, 12, about="m1"))
    assert seqs(store.read(2, 6, "", ALL, 10, newest=False)) == [3, 4, 5]
    assert seqs(store.read(0, 99, "", ALL, 2, newest=False)) == [1, 2]
    assert seqs(store.read(0, 99, "", ALL, 2, newest=True)) == [11, 12]
    assert seqs(store.read(0, 9, "", ("error",), 9, newest=False)) == [2, 4, 6, 8]
    assert seqs(store.read(0, 99, "m1", ALL, 9, newest=False)) == [11, 12]
    store.close()


def test_only_the_owner_can_read_the_file(folder: Path) -> None:
    Store(folder / "sub" / "j.db", MIB).close()
    assert (folder / "sub" / "j.db").stat().st_mode & 0o777 == 0o600
    assert (folder / "sub").stat().st_mode & 0o777 == 0o700


def test_the_file_stays_below_its_bound(folder: Path) -> None:
    bound = 256 << 10
    store = Store(folder / "j.db", bound)
    for batch in range(60):
        store.append(records(batch * 50 + 1, batch * 50 + 50, text="x" * 200))
    store.close()
    assert (folder / "j.db").stat().st_size < bound * 1.25
    again = Store(folder / "j.db", bound)
    kept = seqs(again.read(0, 10**6, "", ALL, 10**6, newest=False))
    again.close()
    assert kept[-1] == again.last == 3000 and len(kept) > 500 and kept == list(range(kept[0], 3001))


def test_records_are_found_by_each_of_their_ids_until_they_leave(folder: Path) -> None:
    store = Store(folder / "j.db", 256 << 10)
    for batch in range(60):
        found = records(batch * 50 + 1, batch * 50 + 50, about="m1", text="x" * 200)
        store.append([msgspec.structs.replace(record, fields={"also": [f"r{record.seq}", "d"]}) for record in found])
    kept = seqs(store.read(0, 10**6, "m1", ALL, 10**6, newest=False))
    assert seqs(store.read(0, 10**6, "d", ALL, 10**6, newest=False)) == kept and kept[0] > 1
    assert seqs(store.read(0, 10**6, "r3000", ALL, 9, newest=True)) == [3000]
    assert store._db.execute("SELECT min(seq) FROM also").fetchone() == (kept[0],)
    store.close()


def test_a_crash_of_the_machine_costs_no_more_than_the_newest(folder: Path) -> None:
    store = Store(folder / "j.db", MIB)
    store.append(records(1, 3))
    found = [store._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 1] and (folder / "j.db-wal").stat().st_size > 0
    store.close()


def test_a_second_process_is_refused(folder: Path) -> None:
    store = Store(folder / "j.db", MIB)
    with pytest.raises(OSError, match=r"j\.db: database is locked"):
        Store(folder / "j.db", MIB)
    store.append(records(1, 1))
    store.close()
    Store(folder / "j.db", MIB).close()


@pytest.mark.parametrize(
    "content", [b"this is no database, but long enough to be one" * 50, b"SQLite format 3\0" + b"\xff" * 9000]
)
def test_a_damaged_file_is_moved_aside(folder: Path, content: bytes) -> None:
    path = folder / "j.db"
    path.write_bytes(content)
    (folder / "j.db-wal").write_bytes(b"old log")
    store = Store(path, MIB)
    assert store.damaged == folder / "j.db.damaged" and store.damaged.read_bytes() == content
    assert store.last == 0
    store.append(records(1, 1))
    store.close()
    assert not (folder / "j.db-wal").exists()


def test_the_log_of_a_damaged_file_is_not_replayed_into_the_new_one(folder: Path) -> None:
    path, log = folder / "j.db", folder / "j.db-wal"
    store = Store(path, MIB)
    store.append(records(1, 3))
    store.close()
    store = Store(path, MIB)
    store.append(records(4, 5))
    valid = log.read_bytes()
    store.close()
    path.write_bytes(b"damaged" * 1000)
    log.write_bytes(valid)
    again = Store(path, MIB)
    assert again.damaged is not None and again.last == 0
    assert again.read(0, 9, "", ALL, 9, newest=False) == []
    again.close()


def test_damage_in_the_middle_is_found_when_opened(folder: Path) -> None:
    path = folder / "j.db"
    store = Store(path, MIB)
    store.append(records(1, 500, text="x" * 100))
    store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\x01" * (len(whole) - 4096))
    again = Store(path, MIB)
    assert again.damaged is not None
    again.close()


def test_a_path_that_cannot_be_a_file(folder: Path) -> None:
    with pytest.raises(OSError, match=str(folder)):
        Store(folder, MIB)
    (folder / "file").touch()
    with pytest.raises(OSError):
        Store(folder / "file" / "j.db", MIB)


def test_a_file_of_something_else_is_left_alone(folder: Path) -> None:
    path = folder / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE journal (a)")
    other.commit()
    other.close()
    with pytest.raises(OSError, match="no such column"):
        Store(path, MIB)
    assert path.exists()


def test_errors_of_the_file_are_os_errors(folder: Path) -> None:
    store = Store(folder / "j.db", MIB)
    store.close()
    with pytest.raises(OSError, match="closed"):
        store.append(records(1, 1))
    with pytest.raises(OSError, match="closed"):
        store.read(0, 9, "", ALL, 9, newest=False)
