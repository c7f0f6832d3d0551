"""Copies of files that are hashed on the way, so that nothing is read twice.

Where the disk can share blocks (ioctl_ficlone(2): btrfs, xfs) nothing is copied at all. Elsewhere the system copies
(copy_file_range(2)) piece by piece in one thread, while another one hashes the pieces that are there; where it cannot,
one thread reads and writes. What is hashed is always what was stored.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from pathlib import Path

CHUNK = 1 << 20
"""Bytes that are read, written and hashed at a time: what both threads use stays in the caches of the processor."""
AHEAD = 16 << 20
PIECE = 4 << 20
"""Bytes that the system copies at a time."""
FICLONE = 0x40049409
SYNC_FILE_RANGE_WRITE = 2
"""Of sync_file_range(2): begin to write, wait for nothing. Only a hint, so what it answers does not matter."""
_NO_CLONE = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EBADF, errno.EPERM})
_NO_COPY = _NO_CLONE | {errno.ENOSYS}

Tell = Callable[[int], None]
"""Called with each further number of bytes that are done."""


def copy(source: int, target: Path, tell: Tell) -> str:
    """Copy an open file to a new one, also into folders that do not exist yet; the SHA-256 of what was written.

    Raises:
        OSError: among them FileExistsError, and what a full disk says; a file that was begun is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    into = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if clone(source, into):
            whole = sha256(into, tell)
        else:
            whole = _by_system(source, into, tell) or _copy(source, into, tell)
    except BaseException:
        target.unlink()
        raise
    finally:
        os.close(into)
    return whole


def clone(source: int, into: int) -> bool:
    """Let a new file share the blocks of another one; False where the disk cannot. Raises OSError."""
    try:
        fcntl.ioctl(into, FICLONE, source)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True


def sha256(descriptor: int, tell: Tell) -> str:
    """The SHA-256 of an open file, from its beginning. Raises OSError."""
    digest, buffer, done = hashlib.sha256(), bytearray(CHUNK), 0
    while count := os.preadv(descriptor, [buffer], done):
        digest.update(memoryview(buffer)[:count])
        done += count
        tell(count)
    return digest.hexdigest()


def _by_system(source: int, into: int, tell: Tell) -> str:
    """Copy without a way through this process; empty where the system cannot, and then nothing was written."""
    try:
        done = os.copy_file_range(source, into, PIECE, 0, 0)
    except OSError as error:
        if error.errno in _NO_COPY:
            return ""
        raise
    if not done:  # an empty file, or one of a kind that tells no size
        return ""
    digest, hashed, count = hashlib.sha256(), 0, done
    buffer = bytearray(CHUNK)
    with ThreadPoolExecutor(1, "copy") as copier:
        while count:
            _begin_storing(into, done - count, count)
            coming = copier.submit(os.copy_file_range, source, into, PIECE, done, done)
            while hashed < done:
                read = os.preadv(into, [memoryview(buffer)[: done - hashed]], hashed)
                digest.update(memoryview(buffer)[:read])
                hashed += read
                tell(read)
            count = coming.result()
            done += count
    return digest.hexdigest()


def _copy(source: int, into: int, tell: Tell) -> str:
    """Read and write in this thread, hash in another one; two buffers take turns."""
    digest, done = hashlib.sha256(), 0
    buffers = (bytearray(CHUNK), bytearray(CHUNK))
    hashing: list[Future[None] | None] = [None, None]
    with ThreadPoolExecutor(1, "hash") as hasher:
        for turn in cycle((0, 1)):
            before = hashing[turn]
            if before is not None:
                before.result()
            with suppress(OSError):  # only a hint: the disk reads on while this piece is hashed and written
                os.posix_fadvise(source, done + CHUNK, AHEAD, os.POSIX_FADV_WILLNEED)
            count = os.preadv(source, [buffers[turn]], done)
            if not count:
                break
            view = memoryview(buffers[turn])[:count]
            if done or count == CHUNK:
                hashing[turn] = hasher.submit(digest.update, view)
            else:  # a small file needs no thread
                digest.update(view)
            _write(into, view)
            _begin_storing(into, done, count)
            done += count
            tell(count)
    return digest.hexdigest()


def _begin_storing(into: int, offset: int, count: int) -> None:
    """Have the disk begin with what was written, while the rest is read and hashed; a later fsync then waits less."""
    ctypes.CDLL(None).sync_file_range(into, ctypes.c_int64(offset), ctypes.c_int64(count), SYNC_FILE_RANGE_WRITE)


def _write(into: int, view: memoryview) -> None:
    while len(view):
        view = view[os.write(into, view) :]
