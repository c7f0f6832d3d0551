"""The CPU as a device: any Hugging Face language model or encoder that transformers knows, in plain torch."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..contract import DeviceFactory, Facts, ProgressSink
from ..hookspecs import hookimpl
from ..ops.table import OpTable
from .figures import Figures
from .torch_device import FEATURES, TorchDevice, count

if TYPE_CHECKING:
    from ..engine.place import Place
    from ..ops.cpu.native import Native

NAME = "cpu0"
POOL = "host"
PARTS = f"{__name__}:parts"
CPU_INFO = Path("/proc/cpuinfo")
SAMPLE_S = 10.0
"""Seconds between two looks at the process's size: the system walks all its pages for an answer."""


@hookimpl
def register_devices(register: Callable[[str, DeviceFactory], None]) -> None:
    register(NAME, CpuDevice)


class CpuDevice(TorchDevice):
    """One device for all cores; its memory is the machine's."""

    name: ClassVar[str] = NAME
    kind: ClassVar[str] = "cpu"
    pooled: ClassVar[bool] = True
    config_keys: ClassVar[Mapping[str, str]] = {
        **TorchDevice.config_keys,
        "ranks": "processes that each model is split among, to try what several GPUs do; 1 by default",
    }

    def __init__(self) -> None:
        super().__init__()
        self._native: Native | None = None
        self._empty_bytes = 0
        self._sampled_at = float("-inf")
        self._sampled_bytes = 0
        self._sampled_absent: Figures = {}

    def _processes(self, config: Mapping[str, Any]) -> int:
        return count(config, "ranks", 1)

    def _register_own(self) -> None:
        from ..ops.cpu.ops import register_native

        self._native = register_native(self.ops)

    def _place(self, threads: int, config: Mapping[str, Any]) -> Place:
        from ..engine.memory import process_bytes
        from ..engine.place import PROCESSOR

        self._empty_bytes = process_bytes()
        ranks = self._processes(config)
        if ranks == 1:
            return PROCESSOR
        import torch

        from ..engine.parallel.divided import HostPlace
        from ..engine.parallel.ranks import Crew, Ranks

        self._ranks = Ranks(Crew(ranks, PARTS, self._device, threads, {**config, "ranks": 1}, torch.device("cpu")))
        self._ranks.start()
        return HostPlace(PROCESSOR, self._ranks)

    def facts(self) -> Facts:
        import torch

        from ..engine.memory import free_bytes, machine_bytes, process_bytes

        total = machine_bytes()
        foreign = max(0, total - free_bytes() - process_bytes())
        features: dict[str, float | int | str] = {
            "cores": os.cpu_count() or 1,
            "threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            **FEATURES,
        }
        return Facts(self._device, self.kind, total, foreign, _processor(), features, POOL, unit=self.kind)

    def prepare(self, progress: ProgressSink) -> None:
        if self._native is not None:
            self._native.prepare(lambda: progress(0, 0, "", "compile"))

    def _changing(self) -> None:
        self._sampled_at = float("-inf")

    def _held(self) -> int:
        """What the process has grown by since it was empty, and all that its ranks hold."""
        self._sample()
        return self._sampled_bytes

    def _absent(self) -> Figures:
        self._sample()
        return self._sampled_absent

    def _sample(self) -> None:
        from ..engine.memory import process_bytes

        if time.monotonic() - self._sampled_at >= SAMPLE_S:
            self._sampled_at = time.monotonic()
            others = 0 if self._ranks is None else self._ranks.process_bytes
            self._sampled_bytes = max(0, process_bytes() - self._empty_bytes) + others
            self._sampled_absent = self._running().absent()


def parts(name: str, threads: int, config: Mapping[str, Any], rank: int) -> tuple[OpTable, Place]:
    """What another rank of this device computes with."""
    from ..engine.place import PROCESSOR

    device = CpuDevice()
    device.start(name, threads, config)
    device.prepare(lambda done, total, unit="", stage="": None)
    return device.ops, PROCESSOR


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in fields if key.strip() == "model name"), platform.machine())
