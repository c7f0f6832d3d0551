"""One namespace: /models, /data, /home from filesystem drivers; /dev, /proc, /sys from the kernel."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from ..errors import (
    BadModel, BadState, Busy, Conflict, DriverFailed, Exists, NoResources, NoSpace, NotDirectory, NotFound,
    NotSupported, PeerGone, ReadOnly, Unavailable,
)  # fmt: skip
from ..spec import Call
from ..types import Bytes, Data, Done, Entry, File, Handle, Hit, Kind, Mount, Right, Written

Path = Annotated[str, Meta(max_length=4096)]

DRIVER = (Unavailable, PeerGone, DriverFailed, BadState)
"""What any call may answer that a file system driver carries out: it restarts, ended, has failed, is stopped."""


class OpenFile(
    Call[File],
    name="open_file",
    errors=(NotFound, Exists, NotDirectory, ReadOnly, Conflict, NoSpace, NoResources, *DRIVER),
):
    """Open a file of the namespace. Mode r reads, w replaces, a appends, x creates; writes show at the close."""

    path: Annotated[Path, "absolute path of the namespace"]
    mode: Annotated[Literal["r", "w", "a", "x"], "r, w, a or x"] = "r"
    expected_version: Annotated[str | None, "answer Conflict unless the file still has this version"] = None


class ReadFile(Call[Data], name="read_file", errors=(NotSupported, NoResources, *DRIVER)):
    """Read up to `count` bytes at `offset`. Above 64 KiB the answer is a shared buffer, to be closed by the reader."""

    file: Annotated[Handle, Kind.FILE, Right.READ, "an open file"]
    offset: Annotated[int, Meta(ge=0), "first byte"]
    count: Annotated[int, Meta(ge=0, le=1 << 30), "how many at most"]


class WriteFile(Call[Written], name="write_file", errors=(NoSpace, ReadOnly, *DRIVER)):
    """Write bytes at `offset`."""

    file: Annotated[Handle, Kind.FILE, Right.WRITE, "a file opened for writing"]
    offset: Annotated[int, Meta(ge=0), "where"]
    data: Annotated[Bytes, "the bytes, or a place in a shared buffer"]


class ListDir(Call[list[Entry]], name="list_dir", errors=(NotFound, NotDirectory, *DRIVER)):
    """List a folder by name, at most 1000 entries; pass the last path as `after` for the next ones."""

    path: Annotated[Path, "a folder"]
    after: Annotated[str, "the last path already seen"] = ""


class StatPath(Call[Entry], name="stat_path", errors=(NotFound, NotDirectory, *DRIVER)):
    """Describe one path."""

    path: Annotated[Path, "any path"]


class RemovePath(
    Call[Done],
    name="remove_path",
    errors=(NotFound, NotDirectory, ReadOnly, Busy, NotSupported, BadModel, NoSpace, *DRIVER),
):
    """Remove a file, a model or an empty folder; what is in use answers Busy."""

    path: Annotated[Path, "what to remove"]


class MountFs(Call[Mount], name="mount_fs", errors=(NotFound, Exists, NotDirectory, NotSupported, *DRIVER)):
    """Add a file system to this session's namespace; closing the handle removes it."""

    system: Annotated[Handle, Kind.SYSTEM, Right.MANAGE, "the system"]
    path: Annotated[Path, "where it appears"]
    filesystem: Annotated[str, "name of a filesystem driver, such as models"]
    source: Annotated[str, "what it serves; for models, a folder of the host"]
    mode: Annotated[Literal["ro", "rw"], "ro or rw"] = "ro"


class SearchFs(Call[list[Hit]], name="search_fs", errors=(NotSupported, NotFound, NotDirectory, *DRIVER)):
    """Search below a path, best hits first, each with the reason for its rank."""

    path: Annotated[Path, "where to search"]
    query: Annotated[str, "words"]
    filters: Annotated[dict[str, Any], "conditions on fields"] = {}
    limit: Annotated[int, Meta(ge=1, le=1000), "how many hits at most"] = 8
