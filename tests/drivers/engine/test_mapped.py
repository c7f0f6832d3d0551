"""Pages of mapped files come and go, and nothing that was written is lost."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from llmos.drivers.engine import mapped
from llmos.drivers.engine.mapped import FILES, FilePages, resident_bytes

BYTES = 48 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * (BYTES // 256))
    return path


def read(path: Path) -> torch.Tensor:
    """The file mapped as safetensors maps it, and read."""
    found = torch.from_file(str(path), shared=False, size=BYTES, dtype=torch.uint8)
    assert int(found[::4096].sum()) == 0
    return found


def test_what_was_read_is_given_back_and_read_again(file: Path) -> None:
    pages = FilePages([file])
    found, before = read(file), resident_bytes(FILES)
    pages.trim()
    assert resident_bytes(FILES) < before - BYTES // 2
    assert found[1000:1004].tolist() == [232, 233, 234, 235]


def test_few_pages_stay(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(file)
    pages, before = FilePages([file]), resident_bytes(FILES)
    pages.trim()
    assert resident_bytes(FILES) >= before - (1 << 20)
    pages.drop()
    assert resident_bytes(FILES) < before - BYTES // 2 and found[255] == 255


def test_what_was_written_stays(file: Path) -> None:
    pages, found = FilePages([file]), read(file)
    found[5] = 77
    pages.drop()
    assert found[5] == 77 and found[6] == 6 and file.read_bytes()[5] == 5


def test_other_files_stay(file: Path, tmp_path: Path) -> None:
    pages, found = FilePages([tmp_path / "other"]), read(file)
    before = resident_bytes(FILES)
    pages.drop()
    assert resident_bytes(FILES) >= before - (1 << 20) and found[1] == 1


FREED = """
from llmos.drivers.engine.mapped import HEAP, FilePages, resident_bytes
pages, before = FilePages([]), resident_bytes(HEAP)
parts = [bytearray(60_000) for _ in range(1500)]
kept = parts[::50]
del parts
held = resident_bytes(HEAP)
pages.trim()
print(held - before, resident_bytes(HEAP) - before, len(kept))
"""


def test_what_the_heap_has_free_goes_back() -> None:
    """In a process of its own: the heap of a process that has run long has room, and where, nobody knows."""
    told = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True).stdout
    held, after, kept = map(int, told.split())
    assert held > 64 << 20 and after < 16 << 20 and kept == 30


def test_a_system_that_does_not_tell_is_left_alone(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "STATUS", tmp_path / "none")
    monkeypatch.setattr(mapped, "MAPPINGS", tmp_path / "none")
    found = read(file)
    FilePages([file]).drop()
    assert resident_bytes(FILES) == 0 and found[2] == 2


def test_what_a_long_call_has_read_is_given_back_meanwhile(file: Path) -> None:
    """As soon as it is more than a step; the thread ends with the block."""
    before, deadline = threading.active_count(), time.monotonic() + 30.0
    pages, found = FilePages([file]), torch.from_file(str(file), shared=False, size=BYTES, dtype=torch.uint8)
    with pages.watched():
        start = resident_bytes(FILES)
        assert int(found[::4096].sum()) == 0
        while resident_bytes(FILES) > start + mapped.STEP:
            assert time.monotonic() < deadline
    assert threading.active_count() == before
    assert resident_bytes(FILES) < start + (1 << 20) and found[257] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_blocks_that_are_kept_apart_go_back_when_they_are_free() -> None:
    """Every second one of many blocks is freed: the heap alone keeps them, in pieces between those that stay."""
    program = """
import sys
import torch
from llmos.drivers.engine import mapped
torch.empty(30 << 20, dtype=torch.uint8)  # freed: the heap now keeps all that is smaller
if sys.argv[1] == "apart":
    mapped.keep_apart(1 << 20)
blocks = [torch.ones(4 << 20, dtype=torch.uint8) for _ in range(40)]
before = mapped.resident_bytes(mapped.HEAP)
del blocks[::2]
print(before - mapped.resident_bytes(mapped.HEAP))
"""
    given = {}
    for how in ("apart", "together"):
        done = subprocess.run([sys.executable, "-c", program, how], check=True, capture_output=True, text=True)
        given[how] = int(done.stdout)
    assert given["apart"] >= 19 * (4 << 20) and given["together"] < 4 << 20
