"""What the system tells of the machine's memory, on a tree of files as it has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmos.kernel.memory.machine import FAMILY_S, Machine

GIB = 1 << 30


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def process(proc: Path, number: int, parent: int, anonymous: int | None) -> None:
    write(proc / str(number) / "stat", f"{number} (a) b) S {parent} 1 1\n")
    status = "" if anonymous is None else f"RssAnon:\t{anonymous} kB\nRssFile:\t9999 kB\n"
    write(proc / str(number) / "status", f"Name:\tx\n{status}")


@pytest.fixture
def proc(folder: Path) -> Path:
    proc = folder / "proc"
    write(proc / "meminfo", f"MemTotal: {8 << 20} kB\nMemFree: 5 kB\nMemAvailable: {6 << 20} kB\n")
    process(proc, 10, 1, 100)
    process(proc, 11, 10, 20)
    process(proc, 12, 11, 3)
    process(proc, 13, 12, None)
    process(proc, 99, 1, 5000)
    (proc / "77").mkdir()
    return proc


def test_memory_of_ours_is_anonymous_and_of_all_that_they_started(proc: Path, folder: Path) -> None:
    sample = Machine(proc, folder / "groups").sample([10, 12, 55], 0.0)
    assert sample.own == {10: 120 * 1024, 12: 3 * 1024, 55: 0}
    assert (sample.total, sample.available) == (8 * GIB, 6 * GIB)


def test_new_processes_are_looked_for_now_and_then(proc: Path, folder: Path) -> None:
    machine = Machine(proc, folder / "groups")
    machine.sample([10], 0.0)
    process(proc, 14, 12, 1000)
    process(proc, 11, 10, 30)
    assert machine.sample([10], FAMILY_S - 1).own == {10: 133 * 1024}
    assert machine.sample([10], FAMILY_S).own == {10: 1133 * 1024}
    process(proc, 15, 10, 10_000)
    assert machine.sample([10, 12], FAMILY_S).own == {10: 10_130 * 1024, 12: 1003 * 1024}


@pytest.mark.parametrize(
    ("line", "folder_name", "limit", "use", "stat"),
    [
        ("4:memory:/a/b", "memory/a/b", "memory.limit_in_bytes", "memory.usage_in_bytes",
         "total_inactive_file 1000\ntotal_active_file 200\ninactive_file 7\n"),
        ("0::/a/b", "a/b", "memory.max", "memory.current", "inactive_file 900\nactive_file 200\nslab_reclaimable 100"),
        ("0::/a/b", "", "memory.max", "memory.current", "inactive_file 1200\n"),
        ("0::/../c", "a/../../groups", "memory.max", "memory.current", "inactive_file 1200\n"),
    ],
    ids=["version 1", "version 2", "the top", "outside of what is seen"],
)  # fmt: skip
def test_the_smallest_group_is_the_limit_and_files_in_memory_can_be_dropped(
    proc: Path, folder: Path, line: str, folder_name: str, limit: str, use: str, stat: str
) -> None:
    groups = folder / "groups"
    (groups / "a").mkdir(parents=True)
    write(proc / "self/cgroup", f"9:cpu,cpuacct:/x\n{line}\n")
    group = groups / folder_name
    write(group / limit, str(2 * GIB))
    write(group / use, str(GIB + 1200))
    write(group / "memory.stat", stat)
    sample = Machine(proc, groups).sample([], 0.0)
    assert (sample.total, sample.available) == (2 * GIB, GIB)


def test_a_group_without_a_limit_and_one_that_is_full(proc: Path, folder: Path) -> None:
    groups = folder / "groups"
    write(proc / "self/cgroup", "0::/a\n")
    write(groups / "a/memory.max", "max\n")
    write(groups / "a/memory.current", "5")
    assert Machine(proc, groups).sample([], 0.0).total == 8 * GIB
    write(groups / "memory.max", str(GIB))
    write(groups / "memory.current", str(GIB + 5))
    sample = Machine(proc, groups).sample([], 0.0)
    assert (sample.total, sample.available) == (GIB, 0)


def test_this_machine() -> None:
    sample = Machine().sample([os.getpid()], 0.0)
    assert 0 < sample.available <= sample.total and sample.own[os.getpid()] > 1 << 20
