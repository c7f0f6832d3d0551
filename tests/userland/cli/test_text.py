"""Figures as people read them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.syscalls.errors import BadArgument
from llmos.userland.cli import text


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (12_000_000, "11.4 MiB"), (3 << 40, "3.0 TiB")],
)  # fmt: skip
def test_sizes(count: int, said: str) -> None:
    assert text.size(count) == said


@pytest.mark.parametrize(
    ("said", "count"),
    [("0", 0), ("1024", 1024), ("4GiB", 4 << 30), ("2g", 2 << 30), ("500 MB", 500_000_000), ("1.5 kib", 1536)],
)
def test_sizes_are_understood(said: str, count: int) -> None:
    assert text.bytes_of(said) == count


@pytest.mark.parametrize("said", ["", "large", "-1", "4 XB", "1..5 GB", "GiB"])
def test_what_is_no_size(said: str) -> None:
    with pytest.raises(BadArgument, match="4GiB"):
        text.bytes_of(said)


def test_counted_things() -> None:
    assert [text.several(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.00084, "840 us"), (0.012, "12 ms"), (3.21, "3.2 s"), (250, "4 m 10 s"), (7500, "2 h 5 m"),
        (273_600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    assert text.duration(seconds) == said


@given(st.floats(0, 1e9))
def test_every_duration_has_words(seconds: float) -> None:
    assert text.duration(seconds)[0].isdigit()


@pytest.mark.parametrize(("number", "said"), [(950, "950"), (5_800_000, "5.8 M"), (7e9, "7.0 G"), (1200, "1.2 k")])
def test_counts(number: float, said: str) -> None:
    assert text.count(number) == said


def test_times_and_fields() -> None:
    assert text.ago(0) == ""
    assert text.ago(time.time() - 90) == "1 m 30 s ago"
    assert text.ago(time.time() + 90) == "0 s ago" and text.duration(-90) == "-1 m 30 s"
    assert text.clock(0)[:2] in ("19", "20")
    assert text.fields({"a": 1, "b": "", "c": None, "d": [], "e": "x"}) == "a=1 e=x"
