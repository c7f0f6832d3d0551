"""Shared buffers as files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmos.kernel.buffers import PAGE, BufferFile, BufferPool
from llmos.syscalls.errors import NoResources

UID = os.getuid()


@pytest.fixture
def pool(tmp_path: Path) -> BufferPool:
    return BufferPool(tmp_path / "buffers", UID, kept_bytes=4 * PAGE)


def test_the_folder_is_private_and_so_are_the_files(pool: BufferPool) -> None:
    buffer = pool.take(10, "s", UID)
    assert pool.folder.stat().st_mode & 0o777 == 0o700
    assert buffer.path.stat().st_mode & 0o777 == 0o600


def test_a_new_buffer_is_whole_pages_of_zeros(pool: BufferPool) -> None:
    buffer = pool.take(PAGE + 1, "s", UID)
    assert buffer.size == 2 * PAGE
    assert buffer.path.read_bytes() == bytes(2 * PAGE)
    assert pool.promised == 2 * PAGE


def test_a_session_gets_its_own_buffer_back_and_another_does_not(pool: BufferPool) -> None:
    buffer = pool.take(PAGE, "mine", UID)
    buffer.path.write_bytes(b"secret".ljust(PAGE))
    pool.give(buffer, "mine")
    other = pool.take(PAGE, "other", UID)
    assert other.path != buffer.path
    assert other.path.read_bytes() == bytes(PAGE)
    assert pool.take(PAGE, "mine", UID) == buffer


def test_a_kept_buffer_of_another_size_is_not_taken(pool: BufferPool) -> None:
    small = pool.take(PAGE, "s", UID)
    pool.give(small, "s")
    assert pool.take(2 * PAGE, "s", UID).path != small.path


def test_only_so_many_bytes_are_kept(pool: BufferPool) -> None:
    buffers = [pool.take(3 * PAGE, "s", UID) for _ in range(2)]
    for buffer in buffers:
        pool.give(buffer, "s")
    assert [b.path.exists() for b in buffers] == [True, False]
    assert pool.promised == 3 * PAGE


def test_a_session_that_ends_leaves_nothing(pool: BufferPool) -> None:
    buffer = pool.take(PAGE, "s", UID)
    pool.give(buffer, "s")
    pool.forget("s")
    pool.forget("s")
    assert list(pool.folder.iterdir()) == []
    assert pool.promised == 0


def test_more_than_the_file_system_has_is_refused(pool: BufferPool) -> None:
    with pytest.raises(NoResources, match="no room for a buffer") as raised:
        pool.take(1 << 60, "s", UID)
    assert raised.value.what == "buffer bytes"
    assert list(pool.folder.iterdir()) == []


@pytest.mark.skipif(UID != 0, reason="giving a file to another user needs root")
def test_another_user_gets_a_folder_that_only_it_can_open(pool: BufferPool) -> None:
    first, second = pool.take(PAGE, "s", 12345), pool.take(PAGE, "s", 12345)
    folder = first.path.parent
    assert folder == second.path.parent != pool.folder
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (12345, 0o700)
    assert first.path.stat().st_uid == 12345
    assert pool.folder.stat().st_mode & 0o777 == 0o711


def test_closing_removes_everything(pool: BufferPool) -> None:
    pool.take(PAGE, "s", UID)
    pool.close()
    assert not pool.folder.exists()


def test_a_file_system_that_is_full_is_an_error_and_leaves_no_file(
    pool: BufferPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _size: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(NoResources, match="no space left"):
        pool.take(4096, "s", os.getuid())
    assert pool.promised == 0 and list(pool.folder.iterdir()) == []


def test_what_a_killed_kernel_left_is_swept(folder: Path) -> None:
    (folder / "u7").mkdir()
    for left in (folder / "b1", folder / "u7/b2", folder / "other"):
        left.touch()
    BufferPool(folder, os.getuid())
    assert sorted(path.name for path in folder.rglob("*")) == ["other", "u7"]


def test_the_file_of_a_lease_is_its_users(pool: BufferPool) -> None:
    path = pool.lease_path("l-1", UID)
    path.write_bytes(bytes(PAGE))
    held = pool.adopt(path, PAGE, UID)
    assert pool.promised == pool.present() == PAGE
    pool.end(held)
    pool.end(BufferFile(path, 0))
    assert not path.exists() and pool.promised == 0


@pytest.mark.skipif(UID != 0, reason="only root gives files away")
def test_the_file_of_another_users_lease_is_swept_and_counted_too(pool: BufferPool) -> None:
    path = pool.lease_path("l-1", 12345)
    path.write_bytes(bytes(PAGE))
    pool.adopt(path, PAGE, 12345)
    assert path.stat().st_uid == path.parent.stat().st_uid == 12345 and pool.present() == PAGE
    BufferPool(pool.folder, UID)
    assert not path.exists()


def test_each_sessions_buffers_are_counted_and_those_that_are_kept(pool: BufferPool) -> None:
    one, two = pool.take(PAGE, "a", UID), pool.take(PAGE, "b", UID)
    pool.give(one, "a")
    assert (pool.held("a"), pool.held("b"), pool.held("c")) == (PAGE, PAGE, 0)
    pool.forget("a")
    pool.discard(two, "b")
    assert (pool.held("a"), pool.held("b"), pool.promised) == (0, 0, 0)
