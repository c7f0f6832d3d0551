from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.filesystems.files import FolderFileSystem
from llmos.syscalls.errors import BadArgument, Conflict, Exists, NoSpace, NotSupported

WRITER = """
import os, signal, sys
from llmos.drivers.filesystems.files import FolderFileSystem
handle = FolderFileSystem(sys.argv[1]).open("/f", sys.argv[2])
handle.write(0, b"new" * 1000)
print("written", flush=True)
sys.stdin.read()
"""
COUNTER = """
import sys
from llmos.drivers.filesystems.files import FolderFileSystem
from llmos.syscalls.errors import Conflict
tree = FolderFileSystem(sys.argv[1])
done = 0
while done < 30:
    reader = tree.open("/f", "r")
    value = int(reader.read(0, 99))
    try:
        writer = tree.open("/f", "w", reader.close())
        writer.write(0, str(value + 1).encode())
        writer.close()
    except Conflict:
        continue
    done += 1
"""
OTHER_DISK = """
import sys
from pathlib import Path
from llmos.drivers.filesystems.files import FolderFileSystem
from llmos.syscalls.errors import NotSupported
handle = FolderFileSystem(sys.argv[1]).open("/disk/f", "w")
try:
    handle.close()
except NotSupported as error:
    print(error)
print([*Path(sys.argv[1], "disk").iterdir(), *Path(sys.argv[1], ".llmos", "scratch").iterdir()])
"""
FULL = """
import sys
from pathlib import Path
from llmos.drivers.filesystems.files import FolderFileSystem
from llmos.syscalls.errors import NoSpace
tree = FolderFileSystem(sys.argv[1])
handle = tree.open("/f", "w")
handle.write(0, b"old")
handle.close()
handle = tree.open("/f", "w")
try:
    for place in range(0, 1 << 22, 1 << 16):
        handle.write(place, bytes(1 << 16))
except NoSpace as error:
    print(error)
handle.discard()
print(Path(sys.argv[1], "f").read_text(), list(Path(sys.argv[1], ".llmos", "scratch").iterdir()))
"""


@pytest.fixture
def tree(tmp_path: Path) -> FolderFileSystem:
    return FolderFileSystem(str(tmp_path))


def scratch(root: Path) -> list[Path]:
    return [*(root / ".llmos" / "scratch").iterdir()]


def test_a_write_is_seen_when_it_is_closed(tree: FolderFileSystem, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    (tmp_path / "f").chmod(0o600)
    handle = tree.open("/f", "w")
    assert handle.bytes == 0
    assert handle.write(0, b"new") == 3
    assert handle.write(5, memoryview(b"er")) == 2
    assert (tmp_path / "f").read_text() == "old"
    with pytest.raises(NotSupported):
        handle.read(0, 1)
    assert handle.close() == tree.stat("/f").version
    assert (tmp_path / "f").read_bytes() == b"new\0\0er"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
    assert scratch(tmp_path) == []


def test_a_discarded_write_leaves_nothing(tree: FolderFileSystem, tmp_path: Path) -> None:
    for path in ("/f", "/new/deep/f"):
        handle = tree.open(path, "w")
        handle.write(0, b"x")
        handle.discard()
    assert tree.list("/") == []
    assert scratch(tmp_path) == []


def test_a_folder_that_others_use_stays_after_a_discard(tree: FolderFileSystem, tmp_path: Path) -> None:
    handle = tree.open("/new/deep/f", "w")
    (tmp_path / "new" / "other").touch()
    handle.discard()
    assert [info.path for info in tree.list("/new")] == ["/new/other"]


def test_mode_x_makes_a_file_once(tree: FolderFileSystem) -> None:
    first, second = tree.open("/f", "x"), tree.open("/f", "x")
    first.write(0, b"first")
    second.write(0, b"second")
    first.close()
    with pytest.raises(Exists):
        second.close()
    with pytest.raises(Exists):
        tree.open("/f", "x")
    handle = tree.open("/f", "r")
    assert handle.read(0, 99) == b"first"
    handle.close()


def test_the_expected_version_is_checked_at_open_and_at_close(tree: FolderFileSystem, tmp_path: Path) -> None:
    handle = tree.open("/f", "w", expected_version="")
    version = handle.close()
    with pytest.raises(Conflict):
        tree.open("/f", "w", expected_version="")
    with pytest.raises(Conflict):
        tree.open("/none", "w", expected_version=version)
    first = tree.open("/f", "w", expected_version=version)
    second = tree.open("/f", "w", expected_version=version)
    first.write(0, b"first")
    second.write(0, b"second")
    now = first.close()
    with pytest.raises(Conflict) as caught:
        second.close()
    assert caught.value.version == now
    assert (tmp_path / "f").read_text() == "first"
    assert scratch(tmp_path) == []


def test_appends_of_two_writers_both_survive(tree: FolderFileSystem, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("0\n")
    first, second = tree.open("/log", "a"), tree.open("/log", "a")
    assert first.bytes == 2
    first.write(2, b"1\n")
    first.write(0, b"1b\n")
    second.write(2, b"2\n")
    second.close()
    first.close()
    assert (tmp_path / "log").read_text() == "0\n2\n1\n1b\n"
    tree.open("/log", "a").close()
    tree.open("/new", "a").close()
    assert (tmp_path / "log").read_text() == "0\n2\n1\n1b\n"
    assert (tmp_path / "new").read_text() == ""
    assert scratch(tmp_path) == []


def test_a_folder_is_not_replaced(tree: FolderFileSystem, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for mode in "wa":
        with pytest.raises(BadArgument):
            tree.open("/d", mode)
    with pytest.raises(Exists):
        tree.open("/d", "x")
    handle = tree.open("/late", "w")
    (tmp_path / "late").mkdir()
    with pytest.raises(BadArgument):
        handle.close()
    assert scratch(tmp_path) == []


def test_a_folder_removed_meanwhile_is_made_again(tree: FolderFileSystem, tmp_path: Path) -> None:
    handle = tree.open("/d/f", "w")
    (tmp_path / "d").rmdir()
    handle.close()
    assert (tmp_path / "d" / "f").exists()


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=10)), max_size=8))
def test_writes_land_where_they_are_told(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, bytes]]
) -> None:
    root = tmp_path_factory.mktemp("tree", numbered=True)
    handle = FolderFileSystem(str(root)).open("/f", "w")
    model = bytearray()
    for offset, data in writes:
        assert handle.write(offset, data) == len(data)
        if data:
            model.extend(bytes(max(0, offset - len(model))))
            model[offset : offset + len(data)] = data
    handle.close()
    assert (root / "f").read_bytes() == model


def test_offsets_beyond_any_disk_are_refused(tree: FolderFileSystem) -> None:
    handle = tree.open("/f", "w")
    for offset in (1 << 62, 1 << 63, 1 << 80):
        with pytest.raises(NoSpace):
            handle.write(offset, b"x")
    handle.discard()


@pytest.mark.parametrize("mode", ["w", "a", "x"])
def test_a_killed_writer_changes_nothing(tmp_path: Path, mode: str) -> None:
    if mode != "x":
        (tmp_path / "f").write_text("old")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "written\n"
        assert len(scratch(tmp_path)) == 2
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    tree = FolderFileSystem(str(tmp_path))
    assert scratch(tmp_path) == []
    assert [info.path for info in tree.list("/")] == ([] if mode == "x" else ["/f"])
    assert mode == "x" or (tmp_path / "f").read_text() == "old"


def test_a_file_that_may_not_grow_is_no_space(tmp_path: Path) -> None:
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))\n{FULL}"
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[0].startswith("no space is left for /f")
    assert out.splitlines()[1] == "old []"


def test_a_full_disk_is_no_space_and_the_old_file_stays(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    mount = f"mount -t tmpfs -o size=256k none {tmp_path} && exec {sys.executable} -c '{FULL}' {tmp_path}"
    run = subprocess.run(["unshare", "-Urm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "no space is left for /f (No space left on device); remove something and write it again", "old []"
    ]  # fmt: skip


def test_another_disk_inside_the_tree_is_said(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    (tmp_path / "disk").mkdir()
    mount = f"mount -t tmpfs none {tmp_path}/disk && exec {sys.executable} -c '{OTHER_DISK}' {tmp_path}"
    run = subprocess.run(["unshare", "-Urm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    assert run.stdout == "/disk/f lies on another disk than its file system\n[]\n", run.stderr


def test_refused_opens_leave_nothing(tree: FolderFileSystem, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for mode, expected in (("x", None), ("w", "other"), ("r", "other"), ("a", "")):
        with pytest.raises((Exists, Conflict)):
            tree.open("/f", mode, expected)
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_two_processes_that_check_versions_lose_no_update(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("0")
    counters = [subprocess.Popen([sys.executable, "-c", COUNTER, str(tmp_path)]) for _ in range(2)]
    assert [counter.wait() for counter in counters] == [0, 0]
    assert (tmp_path / "f").read_text() == "60"
