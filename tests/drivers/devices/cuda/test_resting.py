"""Weights that sleep in host memory and wake, with host and device both the CPU."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from late_lanes import LateLanes
from torch import Tensor

from llmos.drivers.devices.cuda.resting import Blocks, Sleeping, put


def ignore(done: int, total: int) -> None:
    """A report that nobody reads."""


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=8), piece=st.integers(1, 32))
def test_what_sleeps_wakes_as_it_was(sizes: list[int], piece: int) -> None:
    tensors = [torch.randn(size) for size in sizes]
    views = [tensor[::2] for tensor in tensors]
    before = [view.clone() for view in views]
    pages = torch.ones(100)
    sleeping = put([*tensors, *views], [pages, tensors[0]], LateLanes(), piece)
    assert all(tensor.untyped_storage().nbytes() == 0 for tensor in (*tensors, pages))
    assert sleeping.host_bytes == 4 * sum(sizes)
    told: list[int] = []
    sleeping.wake(lambda done, total: told.append(done))
    assert all(torch.equal(view, old) for view, old in zip(views, before, strict=True))
    assert pages.shape == (100,) and pages.untyped_storage().nbytes() == 400
    assert told[-1] == sleeping.host_bytes and told == sorted(told)


def test_a_model_that_lies_elsewhere_says_so() -> None:
    tensor = torch.ones(1 << 20)
    address = tensor.data_ptr()
    sleeping = put([tensor], [], LateLanes())
    held = [torch.ones(1 << 20) for _ in range(3)]  # they may take what was given back
    said = sleeping.wake(ignore)
    assert said == ("" if tensor.data_ptr() == address else "1 of 1 blocks of memory lie elsewhere since it woke")
    assert len(held) == 3 and tensor.sum().item() == 1 << 20


def test_without_memory_it_sleeps_on_and_wakes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = torch.randn(10), torch.randn(10)
    before = first.clone(), last.clone()
    storages = [first.untyped_storage(), last.untyped_storage()]
    sleeping = Sleeping(storages, [Blocks(storages)], LateLanes())
    whole = torch.UntypedStorage.resize_

    def full(self: torch.UntypedStorage, size: int) -> object:
        if size and self is storages[1]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.00 KiB")
        return whole(self, size)

    with monkeypatch.context() as patch:
        patch.setattr(torch.UntypedStorage, "resize_", full)
        with pytest.raises(torch.OutOfMemoryError):
            sleeping.wake(ignore)
    assert nothing_held([first, last])
    sleeping.wake(ignore)
    assert torch.equal(first, before[0]) and torch.equal(last, before[1])


def nothing_held(tensors: Iterable[Tensor]) -> bool:
    return all(tensor.untyped_storage().nbytes() == 0 for tensor in tensors)
