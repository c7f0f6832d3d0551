"""The journal: ring and file together, and what a full disk or a broken file costs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.kernel.console import Console
from llmos.kernel.journal import LEVELS, MAX_TEXT, Journal
from llmos.syscalls.types import Reason, Record


def clock() -> float:
    return 12.5


def seqs(found: list[Record]) -> list[int]:
    return [r.seq for r in found]


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "journal.db"


def test_a_record_says_who_what_and_why() -> None:
    journal = Journal(10, None, clock)
    reason = Reason(code="c", text="because")
    record = journal.write("model", "warning", "evicted", "m1", [reason], bytes=5)
    assert record == Record(
        seq=1, at=12.5, unit="model", level="warning", about="m1", text="evicted", fields={"bytes": 5}, reasons=[reason]
    )
    assert journal.read() == [record] and journal.last == 1
    assert journal.flush() and journal.unsaved == 0
    with pytest.raises(ValueError, match="'loud'"):
        journal.write("model", "loud", "x")


def test_reading_by_number_subject_and_level() -> None:
    journal = Journal(10, None, clock)
    for number, level in enumerate(LEVELS):
        journal.write("u", level, "x", about=f"m{number % 2}")
    assert seqs(journal.read(after=2)) == [3, 4]
    assert seqs(journal.read(about="m1")) == [2, 4]
    assert seqs(journal.read(level="warning")) == [3, 4]
    assert seqs(journal.read(limit=2)) == [1, 2]
    assert seqs(journal.read(after=-1, limit=2)) == [3, 4]
    assert seqs(journal.read(after=-1, about="m0", limit=1)) == [3]
    assert journal.read(after=4) == [] and Journal(10, None, clock).read(after=-1) == []


def test_the_ring_forgets_the_oldest() -> None:
    journal = Journal(3, None, clock)
    for _ in range(5):
        journal.write("u", "info", "x")
    assert seqs(journal.read()) == [3, 4, 5] and seqs(journal.read(after=-1, limit=99)) == [3, 4, 5]


def test_numbers_go_on_after_a_restart_and_old_records_are_read_from_the_file(path: Path) -> None:
    journal = Journal(20, path, clock)
    for number in range(10):
        journal.write("u", "info", "x", about="even" if number % 2 else "odd")
    journal.close()
    journal = Journal(4, path, clock)
    assert journal.write("u", "info", "after").seq == 11
    assert seqs(journal.read(after=7)) == [8, 9, 10, 11]
    assert seqs(journal.read(after=0, limit=3)) == [1, 2, 3]
    assert seqs(journal.read(after=-1, limit=3)) == [9, 10, 11]
    assert seqs(journal.read(after=-1, limit=1)) == [11]
    assert seqs(journal.read(after=5, about="even")) == [6, 8, 10]
    assert seqs(journal.read(after=10)) == [11]
    journal.close()
    assert seqs(journal.read(after=0)) == [11]
    journal.write("u", "info", "still in memory")
    assert journal.unsaved == 0 and seqs(journal.read(after=11)) == [12]


def test_flush_stores_a_bounded_batch(path: Path) -> None:
    journal = Journal(5000, path, clock)
    for _ in range(1500):
        journal.write("u", "info", "x")
    assert journal.unsaved == 1500 and journal.flush() and journal.unsaved == 500
    journal.close()
    again = Journal(10, path, clock)
    assert again.last == 1500
    again.close()


def test_lines_go_to_the_console() -> None:
    reader, writer = os.pipe()
    try:
        Journal(10, None, clock, Console(writer)).write("kernel", "info", "hello")
        assert os.read(reader, 100) == b"<6>kernel: hello\n"
    finally:
        os.close(reader)
        os.close(writer)


def test_what_cannot_be_stored_as_it_is_is_stored_as_text(path: Path) -> None:
    journal = Journal(10, path, clock)
    odd = Reason(code="c\udcff", text="t", numbers={"n": 1 << 80}, rule="r")
    record = journal.write("u\udcff", "info", "x" * 10_000, "m\udcff", [odd], a=object, b="\udcff", c=1 << 80)
    assert record.unit == "u\\udcff" and record.about == "m\\udcff"
    assert record.text == "x" * MAX_TEXT + "... (10000 characters)"
    assert Journal(10, None, clock).write("u", "info", "x" * MAX_TEXT).text == "x" * MAX_TEXT
    assert record.fields == {"a": "<class 'object'>", "b": "'\\udcff'", "c": str(1 << 80)}
    assert record.reasons == [Reason(code="c\\udcff", text="t", numbers={"n": str(1 << 80)}, rule="r")]
    assert journal.flush()
    journal.close()
    again = Journal(10, path, clock)
    assert again.read() == [record]
    again.close()


def test_a_record_is_found_by_each_of_its_ids(path: Path) -> None:
    journal = Journal(16, path, clock)
    journal.write("u", "info", "x", "m1", also=["cpu0", "r1"], n=1)
    journal.write("u", "info", "x", "cpu0")
    journal.write("u", "info", "x", "m2", also=["r1"], odd=object)
    assert journal.read()[0].fields == {"n": 1, "also": ["cpu0", "r1"]}
    assert seqs(journal.read(about="cpu0")) == [1, 2] and seqs(journal.read(about="r1")) == [1]
    assert journal.number() == 4 and journal.write("u", "info", "x").seq == 5
    assert journal.number(3) == 6 and journal.last == 8
    journal.close()
    again = Journal(16, path, clock)
    assert seqs(again.read(about="cpu0")) == [1, 2] and seqs(again.read(about="m1")) == [1]
    again.close()


def test_the_callers_values_are_copied() -> None:
    values = [1]
    record = Journal(10, None, clock).write("u", "info", "x", values=values)
    values.append(2)
    assert record.fields == {"values": [1]}


VALUES = st.integers() | st.text(st.characters()) | st.floats() | st.binary(max_size=3)


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.characters()),
    st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text() | st.floats(), max_size=3),
)
def test_any_text_and_number_can_be_sent_and_stored(
    text: str, fields: dict[str, object], numbers: dict[str, int | str | float]
) -> None:
    journal = Journal(10, None, clock)
    record = journal.write("u", "info", text, text, [Reason(code=text, text=text, numbers=numbers)], values=fields)
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=Record)
    stored = msgspec.json.decode(msgspec.json.encode(record), type=Record)
    assert sent == stored == record


def test_a_damaged_file_is_said_and_replaced(path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    journal = Journal(10, path, clock)
    (record,) = journal.read()
    assert record.level == "warning" and "was damaged; it was moved to" in record.text
    journal.close()
    again = Journal(10, path, clock)
    assert again.last == 1
    again.close()


def test_a_file_that_cannot_be_opened_costs_durability_only(folder: Path) -> None:
    journal = Journal(10, folder, clock)
    (record,) = journal.read()
    assert record.level == "error" and "goes on in memory" in record.text and str(folder) in record.text
    journal.write("u", "info", "x")
    assert journal.flush() and seqs(journal.read(after=-1)) == [1, 2]
    journal.close()


def test_a_failure_is_said_once_and_tried_again(path: Path) -> None:
    journal = Journal(5, path, clock)
    journal.write("u", "info", "stored")
    assert journal.flush()
    assert journal._store is not None
    journal._store.close()
    assert journal.flush(), "nothing waits, so nothing fails"
    for _ in range(7):
        journal.write("u", "info", "x")
        assert not journal.flush()
    errors = journal.read(level="error", limit=99)
    assert len(errors) <= 1 and journal.last == 9
    assert journal.read(after=0, limit=99) == journal.read(after=-1, limit=99)
    journal._store.__init__(path, 1 << 20)  # type: ignore[misc]
    assert journal.flush()
    last = journal.read(after=-1, limit=1)[0]
    assert last.text == "the journal is stored again; 3 records were not" and last.fields == {"lost": 3}
    journal.close()


def test_a_file_that_fails_until_the_end_keeps_nothing_waiting(path: Path) -> None:
    journal = Journal(10, path, clock)
    assert journal._store is not None
    journal._store.close()
    journal.write("u", "info", "x")
    journal.close()
    assert journal.unsaved == 0 and journal.flush() and len(journal.read()) == 2


def test_a_failure_to_read_is_said_once(path: Path) -> None:
    journal = Journal(10, path, clock)
    journal.write("u", "info", "x")
    journal.close()
    journal = Journal(10, path, clock)
    assert journal._store is not None
    journal._store.close()
    assert journal.read() == [] == journal.read(after=0, level="warning", limit=0)
    (error,) = journal.read(after=1)
    assert error.level == "error" and "goes on in memory" in error.text


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from llmos.kernel.journal import Journal

    journal = Journal(200, Path(sys.argv[1]), lambda: 1.0)
    journal.write("u", "info", "before")
    assert journal.flush()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    results = []
    for number in range(60):
        for _ in range(10):
            journal.write("u", "info", "x" * 1000, n=number)
        results.append(journal.flush())
    assert True in results and results[-1] is False, results
    errors = journal.read(after=0, level="error", limit=1000)
    assert len(errors) <= 1, errors
    assert len(journal.read(after=-1, limit=1000)) >= 200
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert journal.flush()
    again = journal.read(after=-1, limit=1)[0]
    assert "stored again" in again.text, again
    journal.close()
    print(journal.last)
"""


def test_a_disk_that_is_full_and_then_not(path: Path) -> None:
    """The file-size limit of the process plays the full disk: writes fail in the middle of a real SQLite file."""
    script = textwrap.dedent(FULL_DISK)
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    journal = Journal(10, path, clock)
    assert journal.last == int(done.stdout)
    kept = seqs(journal.read(after=0, limit=10_000))
    assert kept[0] == 1 and kept == sorted(set(kept)) and len(kept) > 200
    journal.close()
