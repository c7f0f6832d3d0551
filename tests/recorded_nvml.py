"""What `pynvml` answered on a machine with two GPUs, to be played back."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

TOTAL = 85_520_809_984
UUIDS = ("GPU-6d1f0e62-5b1c-9a5e-8b59-6f1d2a7f0c11", "GPU-a0c7b1d4-03d2-11ee-be56-0242ac120002")


class NVMLError(Exception):
    """As the library's."""


@dataclass
class RecordedNvml:
    """The functions that are called, with their names there. `silent` are those that the driver does not support."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = NVML_CLOCK_SM = 0
    NVML_CLOCK_MEM = 2
    used: int = 3_221_225_472
    processes: tuple[tuple[int, int | None], ...] = ((4242, 2_147_483_648), (5151, None))
    silent: tuple[str, ...] = ()
    missing: bool = False
    closed: int = 0
    bytes_as_text: bool = field(default=False)

    def nvmlInit(self) -> None:
        if self.missing:
            raise NVMLError("NVML Shared Library Not Found")

    def nvmlShutdown(self) -> None:
        self.closed += 1

    def nvmlDeviceGetCount(self) -> int:
        return len(UUIDS)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return UUIDS[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str | bytes:
        return handle.encode() if self.bytes_as_text else handle

    def nvmlDeviceGetName(self, handle: str) -> str | bytes:
        name = "NVIDIA H100 80GB HBM3"
        return name.encode() if self.bytes_as_text else name

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(total=TOTAL, free=TOTAL - self.used, used=self.used)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        self._ask("processes")
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in self.processes]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        self._ask("temperature")
        return 41

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return 1980 if kind == self.NVML_CLOCK_SM else 2619

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        self._ask("utilisation")
        return SimpleNamespace(gpu=37, memory=12)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 118_500

    def nvmlDeviceGetCudaComputeCapability(self, handle: str) -> tuple[int, int]:
        return 9, 0

    def _ask(self, what: str) -> None:
        if what in self.silent:
            raise NVMLError("Not Supported")
