"""Paths inside a mounted tree, opened so that nothing outside of it can be reached.

A path is walked one name at a time, each relative to the folder before it and without following links: neither `..`
nor a link that appears in the middle of the walk leads out of the tree. (`O_NOFOLLOW` and `dir_fd`; see openat(2).)
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from llmos.syscalls.errors import (
    BadArgument, Busy, Denied, Exists, LlmosError, NoResources, NoSpace, NotDirectory, NotFound, NotSupported, ReadOnly,
)  # fmt: skip

MAX_PATH = 4096
MAX_NAME = 255
"""Bytes of one name, as on the usual file systems of Linux."""
PAGE = 1000
"""Entries that one `list` answers at most."""
PRIVATE = ".llmos"
"""The folder at the top of a tree where drivers keep what is not to be seen."""

Parts = tuple[str, ...]
T = TypeVar("T")


def bad_path(path: str, why: str) -> BadArgument:
    return BadArgument(f"the path {path!r} {why}", name="path", got=path, want="an absolute path of this file system")


def split(path: str) -> Parts:
    """The names of an absolute path; `/` has none.

    Raises:
        BadArgument: relative, too long, or with a name that is `.`, `..`, over 255 bytes, not UTF-8 or holds NUL.
    """
    if len(path) > MAX_PATH:
        raise bad_path(path[:40] + "...", f"has {len(path)} characters; at most {MAX_PATH} are allowed")
    if not path.startswith("/"):
        raise bad_path(path, "does not start with /")
    parts = tuple(name for name in path.split("/") if name)
    for name in parts:
        if name in (".", ".."):
            raise bad_path(path, f"contains {name!r}; write the path without it")
        if "\0" in name:
            raise bad_path(path, "contains a NUL character")
        if not is_text(name):
            raise bad_path(path, "is not valid Unicode")
        if len(name.encode()) > MAX_NAME:
            raise bad_path(path, f"has a name of {len(name.encode())} bytes; at most {MAX_NAME} are allowed")
    return parts


def join(parts: Iterable[str]) -> str:
    """The path of these names."""
    return "/" + "/".join(parts)


def is_text(name: str) -> bool:
    """Whether a name found on disk is UTF-8; others cannot travel in a message."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def page(items: Iterable[T], path_of: Callable[[T], str], after: str) -> list[T]:
    """The first `PAGE` items in order of path that come after the path `after`."""
    return sorted((item for item in items if path_of(item) > after), key=path_of)[:PAGE]


@contextmanager
def file_errors(path: str, writing: bool = False) -> Iterator[None]:
    """Turn the operating system's refusals into typed errors about `path`; anything unexpected passes as it is."""
    try:
        yield
    except OSError as error:
        raised = _translate(error, path, writing)
        if raised is None:
            raise
        raise raised from error


def _translate(error: OSError, path: str, writing: bool) -> LlmosError | None:
    code = error.errno
    if code == errno.ENOENT:
        return NotFound(f"{path} does not exist")
    if code == errno.ENOTDIR:
        return NotDirectory(f"{path} is not a folder, or is below a file or a link (links are not followed)")
    if code == errno.ELOOP:
        return NotFound(f"{path} is a symbolic link; links are not followed here: copy the file instead")
    if code == errno.EISDIR:
        return bad_path(path, "is a folder; a file is expected")
    if code == errno.EEXIST:
        return Exists(f"{path} exists already")
    if code == errno.ENOTEMPTY:
        return Busy(f"{path} is a folder that is not empty; remove what is in it first")
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace(f"no space is left for {path} ({error.strerror}); remove something and write it again")
    if code == errno.EROFS or (writing and code in (errno.EACCES, errno.EPERM)):
        return ReadOnly(f"{path} cannot be changed: {error.strerror}")
    if code in (errno.EACCES, errno.EPERM):
        return Denied(f"{path} cannot be read by the user that runs this system: {error.strerror}")
    if code == errno.ENAMETOOLONG:
        return bad_path(path, "has a name that is too long for this disk")
    if code == errno.EXDEV:
        return NotSupported(f"{path} lies on another disk than its file system", why="mount that folder by itself")
    if code in (errno.EMFILE, errno.ENFILE):
        return NoResources(f"{path} cannot be opened: {error.strerror}; close some files", what="open files")
    return None


@contextmanager
def open_folder(root: Path, parts: Sequence[str], create: bool = False) -> Iterator[int]:
    """A descriptor of a folder in the tree, for use as `dir_fd`; with `create`, missing folders are made."""
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in parts:
            below = _enter(at, name, create)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def _enter(at: int, name: str, create: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=at)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):  # another writer may be faster
        os.mkdir(name, dir_fd=at)
    return os.open(name, flags, dir_fd=at)


def names_in(at: int) -> list[str]:
    """The names in an open folder, in order."""
    with os.scandir(at) as entries:
        return sorted(entry.name for entry in entries)


def open_file(root: Path, parts: Sequence[str]) -> int:
    """A descriptor to read a regular file of the tree. Raises OSError, EISDIR for folders and ELOOP for links."""
    with open_folder(root, parts[:-1]) as at:
        # A pipe must not block the caller until somebody writes to it.
        descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EACCES, "not a regular file", join(parts))


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a whole file so that readers see the old content or the new, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)
