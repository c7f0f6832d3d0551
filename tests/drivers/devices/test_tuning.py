"""The part of a device that tunes: nothing of it is imported before the first job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sources import ROOT

from llmos.drivers.contract import ModelSource, TuneJob
from llmos.drivers.devices.cpu import CpuDevice
from llmos.syscalls.errors import BadState

JOB = TuneJob("t1", "m", {"method": "lora"}, ModelSource("", "", ()), Path("out"), Path("keep"))


def test_a_device_that_is_not_started_has_no_jobs() -> None:
    device = CpuDevice()
    for call in (device.plan_tune, device.tune):
        with pytest.raises(BadState, match="not started"):
            call(JOB)
    assert device.tuning_rows() == [] and device.tunings_ended() == []
    device.check_untuned("m")
    device.end_tunings("m")
    device.stop_tunings()


def test_serving_alone_imports_nothing_that_training_needs() -> None:
    program = """
import sys
from llmos.drivers.devices.cpu import CpuDevice
device = CpuDevice()
device.start("cpu0", 1, {})
device.cancel("r")
device.step()
device.stop()
assert not {"peft", "torchmetrics", "llmos.drivers.tuning.jobs"} & set(sys.modules)
import llmos.drivers.tuning.jobs
assert not {"torchmetrics", "matplotlib"} & set(sys.modules), "what only figures of held-out rows need"
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
