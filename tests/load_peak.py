"""What loading a model takes at the peak, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent

LOADING = """
import json, sys
from pathlib import Path
from llmos.drivers.contract import LoadSettings
from llmos.drivers.devices.cpu import CpuDevice
from tiny_models import silent, source_of

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

device = CpuDevice()
device.start("cpu0", 1, {})
settings = LoadSettings(quant=json.loads(sys.argv[3]))
device.load("small", source_of(Path(sys.argv[1])), settings, silent)
device.unload("small")
before = status("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")
model = device.load("m", source_of(Path(sys.argv[2])), settings, silent)
held = sum(row.allocator for row in model.rows if row.what == "weights")
print(json.dumps([status("VmHWM:") - before, status("VmRSS:") - before, held, model.rung]))
"""
"""A small model first, so that code and tables are there."""


@dataclass(frozen=True)
class Loaded:
    """Bytes at the peak, bytes that stay, and those of them that the device counts as weights; the model's rung."""

    peak: int
    stays: int
    held: int
    rung: str


def load_peak(small: Path, folder: Path, quant: Mapping[str, Any] | None = None) -> Loaded:
    """Load the model of a folder on the CPU, after a small one, with one thread."""
    environ = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOADING, str(small), str(folder), json.dumps(quant)]
    told = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=300).stdout
    return Loaded(*json.loads(told.splitlines()[-1]))
