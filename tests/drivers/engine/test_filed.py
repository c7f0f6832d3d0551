"""Tensors that sleep in a file: their memory is the system's meanwhile, and they wake as they were, where they were."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_models import PROMPT, ask, choice, silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import filed
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.mapped import mappings
from llmos.drivers.ops.table import OpTable

MIB = 1 << 20


def quiet(done: int, total: int) -> None:
    """Nobody looks."""


def resident(tensor: torch.Tensor) -> int:
    """Bytes of a tensor that are in memory, by the flags of its pages."""
    first = tensor.data_ptr() // 4096
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pages:
        flags = os.pread(pages.fileno(), 8 * (tensor.nbytes // 4096), 8 * first)
    return sum(4096 for at in range(7, len(flags), 8) if flags[at] & 0x80)


def test_memory_is_given_back_and_filled_again_at_the_same_addresses(tmp_path: Path) -> None:
    one = torch.arange(MIB, dtype=torch.float32)
    view, before, address = one[1000:2000], one.clone(), one.data_ptr()
    rested = filed.put([one, view], [], tmp_path)
    assert rested is not None
    assert resident(one) <= 2 * 4096
    done: list[tuple[int, int]] = []
    assert rested.wake(lambda *far: done.append(far)) == ""
    assert one.data_ptr() == address
    assert torch.equal(one, before)
    assert torch.equal(view, before[1000:2000])
    assert done[-1][0] == done[-1][1] > one.nbytes - 2 * 4096
    assert list(tmp_path.iterdir()) == []


@given(sizes=st.lists(st.integers(1, 200_000), min_size=1, max_size=5), offset=st.integers(0, 5000))
def test_every_byte_comes_back_wherever_it_lies(sizes: list[int], offset: int) -> None:
    tensors = [torch.randint(0, 256, (size + offset,), dtype=torch.uint8)[offset:] for size in sizes]
    before = [tensor.clone() for tensor in tensors]
    rested = filed.put(tensors, [])
    assert rested is not None
    rested.wake(quiet)
    assert all(torch.equal(*pair) for pair in zip(tensors, before, strict=True))


def test_what_is_dropped_is_lost_and_its_memory_free() -> None:
    pages = torch.ones(MIB)
    rested = filed.put([], [pages])
    assert rested is not None
    assert resident(pages) <= 2 * 4096
    rested.wake(quiet)
    assert pages[4096:-4096].sum() == 0


def test_a_mapped_file_is_not_written_again_unless_it_was_changed(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"same": torch.arange(MIB, dtype=torch.int32)}, file)
    same = load_file(file)["same"]
    if not any(each.file == str(file) for each in mappings()):
        pytest.skip("this version of the library does not map files")
    rested = filed.put([same], [], tmp_path)
    assert rested is not None
    assert rested._bytes == 0
    rested.wake(quiet)
    assert torch.equal(same, torch.arange(MIB, dtype=torch.int32))
    same[5000] = 7
    changed = filed.put([same], [], tmp_path)
    assert changed is not None
    assert changed._bytes > 0
    changed.wake(quiet)
    assert same[5000] == 7
    assert same[5001] == 5001


def test_nothing_changes_where_no_file_can_be_made(tmp_path: Path) -> None:
    one = torch.ones(MIB)
    assert filed.put([one], [], tmp_path / "missing") is None
    assert one.sum() == MIB


def test_a_full_disk_leaves_everything_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    one = torch.ones(MIB)
    monkeypatch.setattr(os, "pwrite", full)
    assert filed.put([one], [], tmp_path) is None
    assert one.sum() == MIB
    assert resident(one) >= one.nbytes - 2 * 4096


def test_tensors_of_a_library_with_memory_of_its_own_do_not_sleep() -> None:
    assert filed.put([torch.ones(64, 64).to_mkldnn()], []) is None


def test_a_file_in_memory_counts_as_memory_of_the_host(tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not filed.in_memory(shared):
        pytest.skip("there is no file system in memory")
    one = torch.ones(MIB)
    there, here = filed.put([one], [], shared), filed.put([one], [], tmp_path)
    assert there is not None
    assert here is not None
    assert there.host_bytes > 4 * MIB - 2 * 4096
    assert here.host_bytes == (there.host_bytes if filed.in_memory(tmp_path) else 0)
    here.wake(quiet)
    there.wake(quiet)


def test_the_home_folder_is_where_they_sleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOS_HOME", str(tmp_path / "home"))
    folder = filed.rest_folder()
    assert folder == tmp_path / "home" / "cache"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_model_wakes_with_what_was_made_of_it(ops: OpTable, llama: Path) -> None:
    engine = Engine(ops)
    engine.load("m", source_of(llama), LoadSettings(), silent)
    wanted = choice(engine, ask(PROMPT, max_tokens=6)).tokens
    resident = engine._entries["m"].resident
    engine.sleep("m")
    assert engine._entries["m"].resident is None
    engine.wake("m", silent)
    assert engine._entries["m"].resident is resident
    assert choice(engine, ask(PROMPT, max_tokens=6)).tokens == wanted
    engine.close()
