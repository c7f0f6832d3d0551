"""Tuning as a driver sees it: a device without it says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from llmos.drivers.contract import (
    Device, Facts, LoadedModel, LoadSettings, ModelSource, ProgressSink, Request, Row, StepEvent, TuneJob,
)  # fmt: skip
from llmos.syscalls.errors import NotFound, NotSupported


class Plain(Device):
    """A device that offers no more than it must."""

    def facts(self) -> Facts:
        raise AssertionError

    def plan(self, source: ModelSource, settings: LoadSettings) -> Sequence[Row]:
        raise AssertionError

    def load(
        self, model: str, source: ModelSource, settings: LoadSettings, progress: ProgressSink, base: str = ""
    ) -> LoadedModel:
        raise AssertionError

    def unload(self, model: str) -> int:
        raise AssertionError

    def submit(self, request: Request) -> None:
        raise AssertionError

    def cancel(self, request: str) -> None:
        raise AssertionError

    def step(self) -> Sequence[StepEvent]:
        raise AssertionError

    def memory(self) -> Sequence[Row]:
        raise AssertionError


def test_a_device_without_tuning_says_so(tmp_path: Path) -> None:
    device = Plain()
    job = TuneJob("t", "m", {"method": "lora"}, ModelSource("/d", "1", []), tmp_path / "out", tmp_path / "keep")
    for begin in (device.plan_tune, device.tune):
        with pytest.raises(NotSupported, match="m"):
            begin(job)
    for change in (device.pause_tune, device.resume_tune, device.checkpoint_tune):
        with pytest.raises(NotFound, match="t"):
            change("t")
