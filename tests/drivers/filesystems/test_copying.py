"""Copies with their hash: same bytes, same hash, nothing left of what failed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from llmos.drivers.filesystems import copying


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    """Three pieces and a bit, all different."""
    path = tmp_path / "source"
    path.write_bytes(b"".join(bytes([n]) * copying.PIECE for n in range(3)) + b"end")
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def test_a_copy_has_the_same_bytes_and_their_hash(source: int, tmp_path: Path) -> None:
    told: list[int] = []
    whole = copying.copy(source, tmp_path / "a/b/target", told.append)
    copied = (tmp_path / "a/b/target").read_bytes()
    assert copied == content(source) and whole == hashlib.sha256(copied).hexdigest()
    assert sum(told) == len(copied)


@pytest.fixture(params=["copied by the system", "read and written"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to copy; where the system cannot, it says so before anything is written."""

    def refuses(*_arguments: object) -> int:
        raise OSError(errno.EXDEV, "another disk")

    if request.param == "read and written":
        monkeypatch.setattr(os, "copy_file_range", refuses)


@pytest.mark.usefixtures("way")
def test_both_ways_copy_the_same(source: int, tmp_path: Path) -> None:
    whole = copying.copy(source, tmp_path / "target", lambda _count: None)
    copied = (tmp_path / "target").read_bytes()
    assert copied == content(source) and whole == hashlib.sha256(copied).hexdigest()


def test_what_is_hashed_is_what_was_stored(source: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the source is written to meanwhile."""
    system, path = os.copy_file_range, tmp_path / "source"

    def changes(*arguments: int) -> int:
        count = system(*arguments)
        path.write_bytes(b"other" * (os.fstat(source).st_size // 5))
        return count

    monkeypatch.setattr(os, "copy_file_range", changes)
    whole = copying.copy(source, tmp_path / "target", lambda _count: None)
    assert whole == hashlib.sha256((tmp_path / "target").read_bytes()).hexdigest()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [0, 1, copying.CHUNK, copying.CHUNK + 1, 2 * copying.CHUNK, copying.PIECE])
def test_sizes_around_a_piece(size: int, tmp_path: Path) -> None:
    data = os.urandom(64) * (size // 64) + b"x" * (size % 64)
    (tmp_path / "source").write_bytes(data)
    with (tmp_path / "source").open("rb") as file:
        whole = copying.copy(file.fileno(), tmp_path / "target", lambda _count: None)
        assert copying.sha256(file.fileno(), lambda _count: None) == whole == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "target").read_bytes() == data


def test_a_disk_that_shares_blocks_is_asked_first(source: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shares(into: int, request: int, origin: int) -> int:
        assert request == copying.FICLONE
        os.pwrite(into, content(origin), 0)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", shares)
    told: list[int] = []
    whole = copying.copy(source, tmp_path / "target", told.append)
    assert whole == hashlib.sha256(content(source)).hexdigest() and sum(told) == len(content(source))


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY])
def test_where_blocks_are_not_shared_it_is_copied(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "ioctl", refuses)
    assert not copying.clone(0, 1)


def test_a_failing_disk_is_no_reason_to_copy(source: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object) -> int:
        raise OSError(errno.EIO, "damaged")

    monkeypatch.setattr(fcntl, "ioctl", fails)
    with pytest.raises(OSError, match="damaged"):
        copying.copy(source, tmp_path / "target", lambda _count: None)
    assert not (tmp_path / "target").exists()


@pytest.mark.usefixtures("way")
def test_a_full_disk_leaves_nothing(source: int, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (copying.CHUNK + 100, limits[1]))
    try:
        with pytest.raises(OSError) as raised:
            copying.copy(source, tmp_path / "target", lambda _count: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG and not (tmp_path / "target").exists()


def test_what_exists_is_not_written_over(source: int, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    with pytest.raises(FileExistsError):
        copying.copy(source, tmp_path / "target", lambda _count: None)
    assert (tmp_path / "target").read_text() == "mine"
