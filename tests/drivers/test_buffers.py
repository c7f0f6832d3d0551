"""Mapped buffers: real files, real mappings."""

from __future__ import annotations

from pathlib import Path

import pytest
from llmos.drivers.buffers import Buffers
from llmos.syscalls.driver import BufferFile
from llmos.syscalls.errors import BadArgument


def make(folder: Path, content: bytes, name: str = "b") -> BufferFile:
    path = folder / name
    path.write_bytes(content)
    return BufferFile(path=str(path), bytes=len(content))


def mapped(path: str) -> bool:
    return path in Path("/proc/self/maps").read_text()


def test_a_buffer_is_mapped_once_and_shows_what_is_written_to_it(folder: Path) -> None:
    buffers = Buffers()
    file = make(folder, b"before")
    first = buffers.view(file)
    with Path(file.path).open("r+b") as stream:
        stream.write(b"after!")
    assert buffers.view(file) is first
    assert bytes(first.slice(0, 6)) == b"after!"


def test_a_read_only_mapping_cannot_be_written(folder: Path) -> None:
    view = Buffers().view(make(folder, b"x" * 10)).slice(0, 10)
    with pytest.raises(TypeError):
        view[0] = 1


def test_a_writable_mapping_reaches_the_file(folder: Path) -> None:
    file = make(folder, b"......")
    Buffers(writable=True).view(file).slice(0, 5)[:] = b"hello"
    assert Path(file.path).read_bytes() == b"hello."


def test_a_replaced_file_is_mapped_anew(folder: Path) -> None:
    buffers = Buffers()
    file = make(folder, b"old")
    old = buffers.view(file)
    other = make(folder, b"new", "other")
    Path(other.path).rename(file.path)
    assert bytes(buffers.view(file).slice(0, 3)) == b"new"
    assert bytes(old.slice(0, 3)) == b"old"


def test_pruning_lets_go_of_removed_files_once_nobody_looks(folder: Path) -> None:
    buffers = Buffers()
    file = make(folder, b"x" * 10)
    view = buffers.view(file).slice(0, 10)
    Path(file.path).unlink()
    buffers.prune()
    assert len(buffers) == 0
    assert bytes(view) == b"x" * 10 and mapped(file.path)
    del view
    assert not mapped(file.path)


def test_pruning_keeps_what_is_there(folder: Path) -> None:
    buffers = Buffers()
    buffers.view(make(folder, b"x"))
    buffers.prune()
    assert len(buffers) == 1


def test_only_so_many_are_kept(folder: Path) -> None:
    buffers = Buffers()
    files = [make(folder, b"x", f"b{number}") for number in range(40)]
    for file in files:
        buffers.view(file)
    assert len(buffers) == 16
    assert mapped(files[-1].path) and not mapped(files[0].path)


@pytest.mark.parametrize("claimed", [11, 1 << 40])
def test_a_buffer_smaller_than_said_is_refused(folder: Path, claimed: int) -> None:
    file = make(folder, b"x" * 10)
    with pytest.raises(BadArgument, match=str(claimed)):
        Buffers().view(BufferFile(path=file.path, bytes=claimed))


def test_a_buffer_that_is_gone_is_refused(folder: Path) -> None:
    with pytest.raises(BadArgument, match="gone"):
        Buffers().view(BufferFile(path=str(folder / "nothing"), bytes=1))
