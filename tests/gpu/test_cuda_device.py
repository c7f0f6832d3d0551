"""The device class on a real GPU: `pytest tests/gpu`, or `python tests/gpu/test_cuda_device.py` without pytest.

Nothing of the kernel takes part. A machine without a GPU skips this.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tiny_models import PROMPT, ask, build, choice, silent, source_of

from llmos.drivers.contract import LoadSettings, Row
from llmos.drivers.devices.cpu import CpuDevice
from llmos.drivers.devices.cuda.device import CudaDevice

SLACK = 64 << 20
"""Bytes of torch's that are nobody's: workspaces of libraries, rounding, buffers of steps."""

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch sees no GPU")


def held(rows: Sequence[Row]) -> int:
    return sum(row.allocator for row in rows)


def driver_bytes(device: CudaDevice) -> int:
    """What this process holds of the device."""
    return sum(row.driver for row in device.memory())


def walk(folder: Path) -> None:
    """Load, generate, sleep, wake, unload: tokens are those of the CPU, bytes are those of torch."""
    cpu = CpuDevice()
    cpu.start("cpu0", 4, {})
    cpu.load("m", source_of(folder), LoadSettings(dtype="float32"), silent)
    request = ask(PROMPT, max_tokens=32)
    expected = choice(cpu, request).tokens
    cpu.stop()

    gpu = CudaDevice("cuda0")
    gpu.start("cuda0", 4, {})
    try:
        facts = gpu.facts()
        assert facts.kind == "cuda" and 0 <= facts.foreign_bytes < facts.memory_bytes
        empty = torch.cuda.memory_allocated()
        planned = {row.what: row.predicted for row in gpu.plan(source_of(folder), LoadSettings(dtype="float32"))}
        loaded = gpu.load("m", source_of(folder), LoadSettings(dtype="float32"), silent)
        print(f"rung {loaded.rung}: {'; '.join(loaded.rung_reasons)}")
        assert loaded.rung == "P"
        rows = {row.what: row.allocator for row in loaded.rows}
        assert rows["weights"] == planned["weights"] and rows["kv"] == planned["kv"]
        taken = torch.cuda.memory_allocated() - empty
        assert held(loaded.rows) <= taken <= held(loaded.rows) + SLACK, (held(loaded.rows), taken)
        assert choice(gpu, request).tokens == expected

        assert not any(reason.startswith("sleep") for reason in loaded.rung_reasons), loaded.rung_reasons
        runner = gpu._running()._entries["m"].awake().runners[0]
        pages = runner.pages[0].data_ptr()
        before, graphs = driver_bytes(gpu), dict(runner._lane._made)
        asleep = gpu.sleep("m")
        assert held(asleep.rows) == 0 and driver_bytes(gpu) <= before - held(loaded.rows) + SLACK
        assert gpu.facts().features["host_bytes_asleep"] == rows["weights"]
        awake = gpu.wake("m", silent)
        assert held(awake.rows) == held(loaded.rows) and driver_bytes(gpu) <= before + SLACK
        assert runner.pages[0].data_ptr() == pages and runner._lane._made == graphs, "graphs survive"
        assert choice(gpu, request).tokens == expected

        assert gpu.unload("m") == held(awake.rows)
        assert torch.cuda.memory_allocated() - empty <= SLACK
    finally:
        gpu.stop()


def test_a_model_on_a_gpu_answers_as_on_the_cpu_and_its_bytes_are_counted(tmp_path: Path) -> None:
    walk(build(tmp_path / "llama"))


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("this torch sees no GPU")
    with tempfile.TemporaryDirectory() as scratch:
        walk(build(Path(scratch) / "llama"))
    print("all is well")
