"""The library and its reasons; that it shares torch's threads."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from llmos.drivers.ops.cpu import build
from llmos.drivers.ops.cpu.layers import Layers
from llmos.drivers.ops.cpu.linear import NativeLinear
from llmos.drivers.ops.cpu.lora import Lora
from llmos.drivers.ops.cpu.native import Native, Together
from llmos.drivers.ops.reference_lora import Segment, segments_of
from llmos.syscalls.errors import NotSupported

SPEC = {"device": "cpu", "dtype": "float32"}

POOLS = """
import os, torch
from llmos.drivers.ops.cpu.linear import NativeLinear
from llmos.drivers.ops.cpu.native import Native
def threads(): return len(os.listdir("/proc/self/task"))
before = threads()
torch.set_num_threads(2)
torch.randn(2000, 2000).add(1.0)
with_torch = threads()
layer, x = NativeLinear(Native(), [torch.randn(512, 512)], None), torch.randn(64, 512)
layer(x)
assert with_torch > before, "torch started no thread, so nothing was shown"
print(threads() - with_torch)
"""


def test_a_missing_library_is_a_reason_and_then_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "CPU_INFO", tmp_path / "none")
    library = Native()
    fits, reason = library.supports(SPEC)
    assert not fits and "the processor has no" in reason
    with pytest.raises(NotSupported, match="the processor has no"):
        library.run.llmos_linear()


def test_a_file_that_is_no_library_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "garbage.so").write_text("garbage")
    monkeypatch.setattr("llmos.drivers.ops.cpu.native.library", lambda _part: tmp_path / "garbage.so")
    assert "cannot be loaded" in Native().supports(SPEC)[1]


def test_it_serves_two_types_on_the_cpu(native: Native) -> None:
    assert native.supports(SPEC) == (True, "")
    assert native.supports({**SPEC, "device": "cuda"}) == (False, "it runs on the CPU")
    assert "not float64" in native.supports({**SPEC, "dtype": "float64"})[1]


def test_there_is_one_pool_of_threads(native: Native) -> None:
    done = subprocess.run([sys.executable, "-c", POOLS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def a_layer(
    native: Native, rows: int, dtype: torch.dtype, block: AbstractContextManager[Any]
) -> list[torch.Tensor]:
    """Ops of every kind but attention, each on what the one before it made; enough rows for several blocks."""
    generator = torch.Generator().manual_seed(0)
    x, big, small, a, b, cos = (
        torch.randn(*size, generator=generator).to(dtype)
        for size in ((rows, 96), (160, 96), (96, 80), (1, 8, 96), (1, 8, 96), (rows, 16))
    )
    wide, narrow = NativeLinear(native, [big], None), NativeLinear(native, [small], None)
    ops, lora = Layers(native), Lora(native)
    segments = segments_of([Segment(0, 0, rows)])
    with block:
        normed = ops.rms_norm(x, x.new_ones(96), 1e-5)
        gated = ops.gated("silu_mul")(wide(normed))
        y = narrow(gated)
        lora.expand(y, lora.shrink(normed, a, segments), b, segments)
        heads, total = ops.add_rms_norm(y, x, x.new_ones(96), 1e-5)
        q, k = heads.view(rows, 3, 32).split([2, 1], dim=1)
        ops.rope(q, k, cos, cos)
        last = ops.rms_norm(q, x.new_ones(32), 1e-5)
        return [normed, gated, y, heads, total, last, ops.add(y, total)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 5, 40, 900])
def test_together_is_the_same_bits_as_one_by_one(native: Native, threads: int, rows: int, dtype: torch.dtype) -> None:
    for ours, alone in zip(
        a_layer(native, rows, dtype, Together(native)), a_layer(native, rows, dtype, nullcontext()), strict=True
    ):
        assert torch.equal(ours, alone)


def test_nothing_is_carried_out_before_the_end_and_blocks_join(native: Native) -> None:
    x, ops, block = torch.randn(3, 32), Layers(native), Together(native)
    with block:
        with block:
            sum_of_both = ops.add(x, x)
            sum_of_both.fill_(torch.nan)
        assert sum_of_both.isnan().all()
    assert torch.equal(sum_of_both, x + x)


def test_a_block_that_fails_carries_out_nothing(native: Native) -> None:
    x, ops = torch.randn(3, 32), Layers(native)
    with pytest.raises(ZeroDivisionError), Together(native):
        sum_of_both = ops.add(x, x)
        sum_of_both.fill_(0.0)
        raise ZeroDivisionError
    assert not sum_of_both.any()
    assert torch.equal(ops.add(x, x), x + x)


def test_memory_of_a_block_stays_until_its_end(native: Native) -> None:
    """What is dropped within the block must not be given to somebody who writes at once."""
    x, ops = torch.randn(64, 64), Layers(native)
    with Together(native):
        total = ops.add(ops.add(x, x), x)
        others = [torch.full((64, 64), 7.0) for _ in range(50)]
    assert torch.equal(total, x + x + x)
    assert all(torch.equal(other, torch.full((64, 64), 7.0)) for other in others)


def test_what_is_not_computed_yet_is_not_copied(native: Native) -> None:
    x, ops = torch.randn(6, 64), Layers(native)
    with pytest.raises(NotSupported, match="copied before it is computed"), Together(native):
        ops.add(x.t(), x.t())
    assert torch.equal(ops.add(x.t(), x.t()), x.t() + x.t())
