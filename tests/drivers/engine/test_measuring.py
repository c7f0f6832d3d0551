"""What page tables say of memory."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from llmos.drivers.engine import measuring
from llmos.drivers.engine.measuring import absent_bytes, resident_now

SIZE = 8 << 20


def mapped(size: int = SIZE) -> torch.Tensor:
    """Memory that nobody has written."""
    return torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)


def test_memory_that_was_never_written_is_not_there() -> None:
    tensor = mapped()
    assert absent_bytes([tensor]) == SIZE
    tensor[: SIZE // 2] = 1
    assert absent_bytes([tensor]) == SIZE // 2
    tensor[:] = 1
    assert absent_bytes([tensor]) == 0


def test_memory_behind_several_tensors_counts_once_and_small_ones_are_there() -> None:
    tensor = mapped()
    assert absent_bytes([tensor, tensor[5:], tensor.view(torch.float32)]) == SIZE
    assert absent_bytes([torch.zeros(10)]) == 0
    assert absent_bytes([]) == 0


def test_where_the_system_tells_nothing_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAGES", "COUNTS"):
        monkeypatch.setattr(measuring, name, tmp_path / "none")
    assert (absent_bytes([mapped()]), resident_now()) == (0, 0)


def test_a_process_grows_at_once_by_what_it_writes() -> None:
    tensor, before = mapped(), resident_now()
    tensor[:] = 1
    assert resident_now() - before >= 0.9 * SIZE
