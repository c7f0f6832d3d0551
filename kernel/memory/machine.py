"""What the machine's memory is used for, as the system tells it: the kernel's only look at it.

Bytes count that the system could not drop: a page of a file can be read again, so neither mapped files nor the page
cache count, of a process only its anonymous memory. Sources: proc(5), the kernel's cgroup-v1 and cgroup-v2 documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")
FAMILY_S = 5.0
"""Seconds after which processes are looked for that ours have started."""


@dataclass(frozen=True, slots=True)
class Sample:
    """All in bytes."""

    total: int
    """What the machine, or the smallest control group around this process, has."""
    available: int
    """What could be given now without swapping."""
    own: Mapping[int, int]
    """Anonymous memory by the processes that were asked for, each with all that it started."""


@dataclass(frozen=True, slots=True)
class _Version:
    """The files of a control group, and which parts of its use could be dropped."""

    limit: str
    use: str
    droppable: tuple[str, ...]


_V1 = _Version("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2 = _Version("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable"))


class Machine:
    """Reads `/proc` and the control groups. `proc` and `groups` are where they are mounted."""

    def __init__(self, proc: Path = PROC, groups: Path = GROUPS) -> None:
        self._proc = proc
        self._groups = groups
        self._family: dict[int, int] = {}
        self._roots: frozenset[int] = frozenset()
        self._due = 0.0

    def sample(self, processes: Collection[int], now: float) -> Sample:
        """How it is now, in seconds `now` of any clock. A process that has ended has no bytes."""
        roots = frozenset(processes)
        if now >= self._due or roots != self._roots:
            self._family, self._roots, self._due = self._descendants(roots), roots, now + FAMILY_S
        own = Counter(dict.fromkeys(roots, 0))
        for process, root in self._family.items():
            own[root] += self._anonymous(process)
        figures = _figures(self._proc / "meminfo")
        total, available = figures["MemTotal"] * 1024, figures["MemAvailable"] * 1024
        for limit, used in self._limits():
            total, available = min(total, limit), min(available, limit - used)
        return Sample(total, max(0, min(available, total)), own)

    def _anonymous(self, process: int) -> int:
        return _figures(self._proc / str(process) / "status").get("RssAnon", 0) * 1024

    def _descendants(self, roots: Collection[int]) -> dict[int, int]:
        """Every process that stems from one of `roots`, with the nearest of them."""
        parents = dict(self._parents())
        family: dict[int, int] = {}
        for process in parents:
            seen = process
            while seen not in roots and seen in parents:
                seen = parents[seen]
            if seen in roots:
                family[process] = seen
        return family

    def _parents(self) -> Iterator[tuple[int, int]]:
        for folder in self._proc.iterdir():
            if folder.name.isdecimal():
                try:
                    text = (folder / "stat").read_text(errors="replace")
                except OSError:  # it has ended
                    continue
                yield int(folder.name), int(text.rpartition(")")[2].split()[1])

    def _limits(self) -> Iterator[tuple[int, int]]:
        """Limit and use of each control group around this process that has a limit."""
        try:
            lines = (self._proc / "self" / "cgroup").read_text().splitlines()
        except OSError:
            return
        for line in lines:
            number, controllers, path = line.split(":", 2)
            if number == "0":
                yield from self._around(self._groups, path, _V2)
            elif "memory" in controllers.split(","):
                yield from self._around(self._groups / "memory", path, _V1)

    def _around(self, top: Path, path: str, version: _Version) -> Iterator[tuple[int, int]]:
        """From a group up to the one at the top of what this process sees."""
        inner = Path(path.strip("/"))
        folders = [top, *(top / each for each in (inner, *inner.parents))]
        for folder in dict.fromkeys(folders):
            try:
                limit, used = int((folder / version.limit).read_text()), int((folder / version.use).read_text())
            except (OSError, ValueError):  # no such group, or no limit: "max"
                continue
            parts = _figures(folder / "memory.stat")
            yield limit, max(0, used - sum(parts.get(name, 0) for name in version.droppable))


def _figures(file: Path) -> dict[str, int]:
    """Whole numbers by name, of lines like `RssAnon:  148 kB` or `inactive_file 4096`; nothing of what is not there."""
    try:
        lines = [line.split() for line in file.read_text(errors="replace").splitlines()]
    except OSError:
        return {}
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}
