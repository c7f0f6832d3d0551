"""Bytes that other programs map."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from llmos.drivers.devices.shared_files import SharedFiles
from llmos.syscalls.errors import Exists, NoDeviceMemory, NotFound
from llmos.syscalls.shm import Mapping

SIZE = 3 << 20
OTHER = """
import sys
from llmos.syscalls.shm import Mapping
with Mapping(sys.argv[1], writable=True) as mapped:
    assert bytes(mapped.view[:5]) == b"hello", bytes(mapped.view[:5])
    mapped.view[-5:] = b"world"
    print(len(mapped))
"""


def test_two_programs_share_the_bytes(tmp_path: Path) -> None:
    files, path = SharedFiles(), tmp_path / "l"
    given = files.give("l", SIZE, str(path))
    assert (given.kind, given.path, path.stat().st_mode & 0o777) == ("shm", str(path), 0o600)
    with Mapping(path, writable=True) as mapped:
        mapped.view[:5] = b"hello"
        other = subprocess.run([sys.executable, "-c", OTHER, given.path], capture_output=True, text=True, check=False)
        assert (other.stdout, other.stderr) == (f"{SIZE}\n", "")
        assert bytes(mapped.view[-5:]) == b"world"
        assert files.end("l") == SIZE and not path.exists()
        assert bytes(mapped.view[:5]) == b"hello", "who has it mapped keeps it"
    with pytest.raises(NotFound):
        files.end("l")


def test_its_memory_is_taken_at_once_and_counted_as_the_system_counts(tmp_path: Path) -> None:
    files = SharedFiles()
    files.give("l", SIZE, str(tmp_path / "l"))
    (row,) = files.rows()
    assert (row.what, row.owner, row.allocator) == ("lease", "l", SIZE) and row.driver >= SIZE
    (tmp_path / "l").unlink()
    assert files.rows()[0].driver == 0
    files.close()
    assert files.rows() == []


def test_nothing_that_is_there_is_given_away(tmp_path: Path) -> None:
    files, mine = SharedFiles(), tmp_path / "mine"
    mine.write_bytes(b"precious")
    (tmp_path / "link").symlink_to(mine)
    for name in ("mine", "link"):
        with pytest.raises(Exists):
            files.give("l", SIZE, str(tmp_path / name))
    files.give("l", SIZE, str(tmp_path / "l"))
    with pytest.raises(Exists):
        files.give("l", SIZE, str(tmp_path / "k"))
    assert mine.read_bytes() == b"precious" and not (tmp_path / "k").exists()


def test_what_the_system_refuses_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE - 1, before[1]))
    try:
        with pytest.raises(NoDeviceMemory) as error:
            SharedFiles().give("l", SIZE, str(tmp_path / "l"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.needed == SIZE and list(tmp_path.iterdir()) == []
