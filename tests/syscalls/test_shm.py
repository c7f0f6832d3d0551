"""Mapping of buffer files."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.shm import Mapping


@pytest.fixture
def buffer(folder: Path) -> Path:
    path = folder / "b1"
    path.write_bytes(bytes(range(256)) * 32)
    return path


def test_a_reader_sees_what_a_writer_wrote(buffer: Path) -> None:
    with Mapping(buffer, writable=True) as writer, Mapping(buffer) as reader:
        writer.slice(10, 5)[:] = b"hello"
        assert bytes(reader.slice(10, 5)) == b"hello"
        assert len(reader) == len(writer) == 8192
    assert buffer.read_bytes()[10:15] == b"hello"


def test_a_reader_cannot_write(buffer: Path) -> None:
    with Mapping(buffer) as reader, pytest.raises(TypeError):
        reader.slice(0, 1)[:] = b"x"


def test_a_part_can_be_mapped(buffer: Path) -> None:
    with Mapping(buffer, size=4096) as part:
        assert len(part) == 4096


@given(offset=st.integers(-10, 5000), length=st.integers(-10, 5000))
@example(offset=4096, length=0)
@example(offset=4096, length=1)
@example(offset=0, length=4097)
@example(offset=-1, length=1)
@example(offset=1, length=-1)
def test_a_slice_lies_inside_or_is_refused(tmp_path_factory: pytest.TempPathFactory, offset: int, length: int) -> None:
    path = tmp_path_factory.getbasetemp() / "slice"
    path.write_bytes(b"x" * 4096)
    with Mapping(path) as mapping:
        if offset >= 0 and length >= 0 and offset + length <= 4096:
            assert len(mapping.slice(offset, length)) == length
        else:
            with pytest.raises(BadArgument, match="4096 bytes") as raised:
                mapping.slice(offset, length)
            assert (raised.value.name, raised.value.got) == ("offset", str(offset + length))


def test_a_link_is_not_followed(buffer: Path) -> None:
    link = buffer.with_name("link")
    link.symlink_to(buffer)
    with pytest.raises(OSError) as raised:
        Mapping(link)
    assert raised.value.errno == errno.ELOOP


def test_a_missing_or_empty_file_leaves_no_descriptor(folder: Path) -> None:
    """The leak check of every test would see one."""
    with pytest.raises(FileNotFoundError):
        Mapping(folder / "none")
    (folder / "empty").touch()
    with pytest.raises(ValueError, match="empty"):
        Mapping(folder / "empty")


def test_after_close_nothing_is_readable(buffer: Path) -> None:
    mapping = Mapping(buffer)
    mapping.close()
    with pytest.raises(ValueError, match="released"):
        mapping.slice(0, 1)
