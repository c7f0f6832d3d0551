"""Counting bytes."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch
from transformers import DynamicCache

from llmos.drivers.engine import memory


def test_a_storage_that_several_share_is_counted_once() -> None:
    whole = torch.zeros(100)
    assert memory.live_bytes([whole, whole[:10], whole.view(10, 10)]) == 400
    assert memory.live_bytes([whole, torch.zeros(10)]) == 440
    assert memory.live_bytes([]) == 0


def test_tied_parameters_are_counted_once() -> None:
    one, two = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
    two.weight = one.weight
    module = torch.nn.Sequential(one, two)
    module.register_buffer("extra", torch.zeros(3))
    assert memory.live_bytes(memory.tensors_of(module)) == 16 * 4 + 12


def test_tensors_are_found_inside_caches_lists_and_maps() -> None:
    cache = DynamicCache()
    cache.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), 0)
    kwargs = {"past_key_values": cache, "use_cache": True, "state": [torch.zeros(2), (torch.zeros(3),)]}
    assert memory.live_bytes(memory.tensors_in(kwargs)) == 2 * 24 * 4 + 8 + 12


def test_a_control_group_limits_what_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = psutil.virtual_memory().total
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (tmp_path / "max",))
    monkeypatch.setattr(memory, "CGROUP_USE", (tmp_path / "current",))
    assert memory.machine_bytes() == total
    (tmp_path / "max").write_text("max\n")
    assert memory.machine_bytes() == total
    (tmp_path / "max").write_text("1000\n")
    (tmp_path / "current").write_text("300\n")
    assert (memory.machine_bytes(), memory.free_bytes()) == (1000, 700)
    (tmp_path / "current").write_text("2000\n")
    assert memory.free_bytes() == 0


def test_the_process_grows_by_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = memory.process_bytes()
    held = torch.ones(16 << 20)  # more than an allocator keeps for later
    assert memory.process_bytes() - before > 0.9 * held.nbytes
    monkeypatch.setattr(memory, "SMAPS", tmp_path / "nothing")
    assert memory.process_bytes() > held.nbytes


def test_only_a_lack_of_memory_is_called_so() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    full = memory.out_of_memory(error.value)
    assert full is not None and full.free > 0 and full.needed == 4 << 60
    assert memory.out_of_memory(MemoryError()) is not None
    assert memory.out_of_memory(RuntimeError("shapes do not match")) is None
    said = "CUDA out of memory. Tried to allocate 20.50 MiB. GPU 0 has a total capacity of 1.00 GiB of which 2 MiB"
    on_device = memory.out_of_memory(torch.OutOfMemoryError(said))
    assert on_device is not None and on_device.needed == 20 * (1 << 20) + (1 << 19)
