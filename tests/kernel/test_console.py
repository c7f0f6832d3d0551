"""Journal lines on stderr: the form, and that a reader who does not read costs nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from llmos.kernel.console import Console
from llmos.syscalls.types import Record


def record(text: str, level: str = "info", about: str = "") -> Record:
    return Record(seq=1, at=0.0, unit="kernel", level=level, about=about, text=text)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            continue


@pytest.mark.parametrize(("level", "prefix"), [("debug", "<7>"), ("info", "<6>"), ("warning", "<4>"), ("error", "<3>")])
def test_a_service_manager_gets_priorities(pipe: tuple[int, int], level: str, prefix: str) -> None:
    Console(pipe[1], "debug").show(record("it runs", level, "m1"))
    assert os.read(pipe[0], 100).decode() == f"{prefix}kernel: it runs [m1]\n"


def test_lower_levels_are_left_out(pipe: tuple[int, int]) -> None:
    console = Console(pipe[1])
    console.show(record("no", "debug"))
    console.show(record("yes m1", "info", about="m1"))
    assert os.read(pipe[0], 100) == b"<6>kernel: yes m1\n"


def test_a_person_gets_time_and_level() -> None:
    leader, follower = os.openpty()
    try:
        Console(follower).show(record("it runs", "warning"))
        line = os.read(leader, 100).decode()
    finally:
        os.close(leader)
        os.close(follower)
    clock, rest = line.split(" ", 1)
    assert len(clock.split(":")) == 3 and rest.rstrip() == "warning kernel: it runs"


def test_control_characters_cannot_forge_lines(pipe: tuple[int, int]) -> None:
    Console(pipe[1]).show(record("a\n<3>forged\x1b[2J\x9b\u2028é"))
    assert os.read(pipe[0], 200).decode() == "<6>kernel: a\\n<3>forged\\x1b[2J\\x9b\\u2028é\n"


def test_long_lines_are_cut_between_characters(pipe: tuple[int, int]) -> None:
    Console(pipe[1]).show(record("€" * 5000))
    line = os.read(pipe[0], 10_000)
    assert 3990 < len(line) <= 4001 and line.endswith("€\n".encode())


def test_a_reader_who_does_not_read_is_not_waited_for(pipe: tuple[int, int]) -> None:
    console = Console(pipe[1])
    for _ in range(200):
        console.show(record("x" * 1000))
    assert 0 < console.dropped < 200
    os.read(pipe[0], 1 << 16)
    dropped = console.dropped
    console.show(record("again"))
    assert console.dropped == dropped


def test_a_reader_who_left_is_no_error(pipe: tuple[int, int]) -> None:
    console = Console(pipe[1])
    os.close(pipe[0])
    console.show(record("nobody"))
    assert console.dropped == 1


def test_a_full_device_is_no_error() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        console = Console(fd)
        console.show(record("x"))
    finally:
        os.close(fd)
    assert console.dropped == 1
