"""The library and its reasons; that it shares torch's threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llmos.drivers.ops.cpu import build
from llmos.drivers.ops.cpu.native import Native, mismatch, no_gradient
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
    monkeypatch.setattr("llmos.drivers.ops.cpu.native.library", lambda: tmp_path / "garbage.so")
    assert "cannot be loaded" in Native().supports(SPEC)[1]


def test_it_serves_two_types_on_the_cpu(native: Native) -> None:
    assert native.supports(SPEC) == (True, "")
    assert native.supports({**SPEC, "device": "cuda"}) == (False, "it runs on the CPU")
    assert "not float64" in native.supports({**SPEC, "dtype": "float64"})[1]


def test_there_is_one_pool_of_threads(native: Native) -> None:
    done = subprocess.run([sys.executable, "-c", POOLS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_a_gradient_that_would_be_lost_is_refused() -> None:
    x = torch.zeros(1, requires_grad=True)
    with pytest.raises(NotSupported, match="rope has no gradient"):
        no_gradient("rope", x)
    with torch.no_grad():
        no_gradient("rope", x)
    assert str(mismatch("rope", "q", 1, 2)) == "rope: q is 1; expected 2"
