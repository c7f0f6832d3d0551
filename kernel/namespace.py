"""Paths and mount tables: the second kind of authority. A program reaches the paths mounted for it, and no others.

As in Plan 9, each session has a table of its own. Paths are checked here once, so that nothing behind this point ever
sees `..`, an empty part or a relative path. Pure: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from llmos.syscalls.errors import BadArgument, Exists, LlmosError, NotFound, ReadOnly

MAX_PATH = 4096
MODES = ("ro", "rw")
_END = r"[\s'\":;,)@]|$"
"""What may follow a path in an error text."""


def normalize(path: str) -> str:
    """The one spelling of a path: absolute, without a slash at its end.

    Raises:
        BadArgument: relative, longer than 4096 characters, or with a part that is empty, `.`, `..` or holds NUL.
    """
    if len(path) > MAX_PATH:
        raise _bad(path[:40] + "...", f"has {len(path)} characters", f"at most {MAX_PATH} characters")
    if not path.startswith("/"):
        raise _bad(path, "is not absolute", "a path that starts with /")
    if "\0" in path:
        raise _bad(path, "contains a NUL character", "a path without NUL")
    trimmed = path.removesuffix("/")
    parts = trimmed.split("/")[1:]
    for part in parts:
        if part in ("", ".", ".."):
            raise _bad(path, f"has the part {part!r}", "a path without empty, . or .. parts")
    return trimmed or "/"


def _bad(path: str, problem: str, want: str) -> BadArgument:
    return BadArgument(f"the path {path!r} {problem}; expected {want}", name="path", got=path, want=want)


@contextmanager
def told_from_outside(inner: str, path: str) -> Iterator[None]:
    """A file system knows its own paths only: where its errors name `inner`, or a folder or model that it lies in, they
    are to name the path that the program uses, which is `path` for `inner`."""
    try:
        yield
    except LlmosError as error:
        names = _outside_names(inner, path)
        # A slash alone is more often a slash than the top folder.
        longest_first = sorted(names, key=len, reverse=True)
        wanted = "|".join(f"{re.escape(n)}(?={'@' if n == '/' != inner else _END})" for n in longest_first)
        error.text = re.sub(rf"(?<![^\s'\"(])(?:{wanted})", lambda found: names[found[0]], error.text)
        if isinstance(error, BadArgument):
            error.got = names.get(error.got, error.got)
        raise


def _outside_names(inner: str, path: str) -> dict[str, str]:
    """For `inner` and each folder that it lies in, with and without a version, what the program calls it."""
    names: dict[str, str] = {}
    while True:
        names[inner] = path
        names.setdefault(inner.partition("@")[0], path.partition("@")[0])
        inner, _, last = inner.rpartition("/")
        path, _, same = path.rpartition("/")
        if not last or last != same or not path:
            return names
        inner = inner or "/"


def check_mode(mode: str) -> str:
    """`ro` or `rw`, else BadArgument."""
    if mode not in MODES:
        raise BadArgument(f"the mode {mode!r} is unknown; expected ro or rw", name="mode", got=mode, want="ro or rw")
    return mode


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A file system at a path. `root` is the folder inside the file system that appears there."""

    path: str
    filesystem: str
    source: str
    mode: str
    id: str
    root: str = "/"


class MountTable:
    """The namespace of one session."""

    def __init__(self, points: Iterable[MountPoint] = ()) -> None:
        self._points: dict[str, MountPoint] = {}
        for point in points:
            self.mount(point)

    def mount(self, point: MountPoint) -> MountPoint:
        """Add a mount point, also below another one.

        Raises:
            BadArgument: bad path or mode.
            Exists: something is mounted at exactly this path.
        """
        point = replace(point, path=normalize(point.path), mode=check_mode(point.mode), root=normalize(point.root))
        if point.path in self._points:
            raise Exists(f"{point.path} is taken by {self._points[point.path].filesystem}; unmount it first")
        self._points[point.path] = point
        return point

    def unmount(self, path: str) -> MountPoint:
        """Remove the mount point at exactly this path. Raises NotFound."""
        path = normalize(path)
        if path not in self._points:
            raise NotFound(f"nothing is mounted at {path}; mounted are {self._known()}")
        return self._points.pop(path)

    def points(self) -> list[MountPoint]:
        """All mount points in order of path."""
        return [self._points[path] for path in sorted(self._points)]

    def find(self, id: str) -> MountPoint | None:
        """The mount point with a stable id."""
        return next((point for point in self._points.values() if point.id == id), None)

    def resolve(self, path: str) -> tuple[MountPoint, str]:
        """The mount point that serves a path, and the absolute path inside that file system. The longest prefix wins.

        Raises:
            BadArgument: not a path.
            NotFound: no mount point covers it.
        """
        path = normalize(path)
        prefix = path
        while prefix not in self._points:
            if prefix == "/":
                raise NotFound(
                    f"{path} is below no mount point of this session; mounted are {self._known()}. "
                    f"A folder of the host is mounted first, or named file:{path}"
                )
            prefix = prefix.rpartition("/")[0] or "/"
        point = self._points[prefix]
        return point, _join(point.root, path if prefix == "/" else path[len(prefix) :])

    def writable(self, path: str) -> tuple[MountPoint, str]:
        """Like `resolve`, for a path that is about to be changed. Raises also ReadOnly."""
        point, inner = self.resolve(path)
        if point.mode != "rw":
            raise ReadOnly(f"{path} cannot be changed: {point.path} is mounted ro")
        return point, inner

    def children(self, path: str) -> list[str]:
        """Names directly below a folder that are mount points or lead to one, so that a list of it shows them."""
        below = normalize(path).removesuffix("/") + "/"
        return sorted({p[len(below) :].partition("/")[0] for p in self._points if p.startswith(below) and p != below})

    def narrowed(self, wanted: Iterable[tuple[str, str]]) -> MountTable:
        """The table of a program that sees only the given (path, mode) pairs of this one, at the same paths.

        Mount points below a wanted path come along, never wider than they are here.

        Raises:
            BadArgument: bad path or mode.
            NotFound: no mount point covers the path or lies below it.
            ReadOnly: rw is wanted of a path that is ro here.
            Exists: a path is wanted twice.
        """
        checked = [(normalize(path), check_mode(mode)) for path, mode in wanted]
        named = {path for path, _ in checked}
        nested: dict[str, MountPoint] = {}
        table = MountTable()
        for path, mode in sorted(checked):
            inner = self._below(path)
            if not inner or self._covers(path):
                point, root = self.writable(path) if mode == "rw" else self.resolve(path)
                table.mount(replace(point, path=path, mode=mode, root=root))
            for point in inner:
                narrower = "rw" if mode == point.mode == "rw" else "ro"
                nested[point.path] = replace(point, mode=narrower)
        for point in nested.values():
            if point.path not in named:
                table.mount(point)
        return table

    def _below(self, path: str) -> list[MountPoint]:
        below = path.removesuffix("/") + "/"
        return [point for point in self.points() if point.path.startswith(below) and point.path != path]

    def _covers(self, path: str) -> bool:
        return any(path == p or path.startswith(p.removesuffix("/") + "/") for p in self._points)

    def _known(self) -> str:
        return ", ".join(sorted(self._points)) or "none"


def _join(root: str, rest: str) -> str:
    """An absolute path below `root`; `rest` is empty or starts with a slash."""
    if root == "/":
        return rest or "/"
    return root if rest == "/" else root + rest
