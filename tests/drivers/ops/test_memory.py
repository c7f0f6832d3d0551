"""Memory in large pages: aligned, not shared by mistake, and given back."""

from __future__ import annotations

import gc
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.ops.memory import ALIGNMENT, HUGE_PAGE, REGION, HugePages


@given(st.lists(st.integers(0, REGION // 3), min_size=1, max_size=12))
def test_no_two_tensors_share_a_byte(sizes: list[int]) -> None:
    memory = HugePages()
    tensors = [memory.empty((size,), torch.uint8) for size in sizes]
    spans = sorted((t.data_ptr(), t.data_ptr() + t.numel()) for t in tensors if t.numel())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert all(t.data_ptr() % ALIGNMENT == 0 for t in tensors if t.numel())


def test_large_tensors_begin_with_a_large_page_and_small_ones_share_one() -> None:
    memory = HugePages()
    large = memory.empty((3, REGION), torch.bfloat16)
    assert large.data_ptr() % HUGE_PAGE == 0 and large.shape == (3, REGION) and large.dtype == torch.bfloat16
    first, second = memory.empty((5, 7), torch.float32), memory.empty((9,), torch.int64)
    assert first.data_ptr() // HUGE_PAGE == second.data_ptr() // HUGE_PAGE
    assert first.untyped_storage().nbytes() == first.nbytes, "what is counted is what it takes"
    first.fill_(1.0)
    second.fill_(2)
    assert bool((first == 1.0).all()) and bool((second == 2).all())


def test_memory_goes_back_when_its_tensors_are_dropped() -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("the system does not tell the size of a process")
    memory = HugePages()
    before = _resident()
    held = [memory.empty((size,), torch.uint8) for size in (REGION, *[REGION // 3] * 6)]
    for tensor in held:
        tensor.fill_(1)
    assert _resident() - before > 2 * REGION
    del held, tensor
    gc.collect()
    assert _resident() - before <= REGION + HUGE_PAGE


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
