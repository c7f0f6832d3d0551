"""What the driver of NVIDIA's GPUs knows without a context on one: which there are, and who holds how much of them.

NVML's Python interface is the module `pynvml` of the package nvidia-ml-py. Numbers of GPUs are those that CUDA gives:
the order of the bus, as far as `CUDA_VISIBLE_DEVICES` lets them be seen.
See https://docs.nvidia.com/deploy/nvml-api and the CUDA C++ Programming Guide, "CUDA Environment Variables".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmos.syscalls.errors import NotFound

VISIBLE = "CUDA_VISIBLE_DEVICES"
PARTITION = "MIG-"


@dataclass(frozen=True)
class Gpu:
    """One GPU; `uuid` names it for ever."""

    uuid: str
    name: str


@dataclass(frozen=True)
class Reading:
    """Bytes of a GPU now, and of each process on it; `figures` are temperature, clocks and the like, where it tells."""

    total: int
    used: int
    processes: Mapping[int, int]
    figures: Mapping[str, float | int | str]

    def foreign(self, pid: int, held: int) -> int:
        """What others hold. A process in a container is not listed by the number that it knows itself by: then `held`
        is what it has."""
        return max(0, self.used - self.processes.get(pid, held))


def visible(gpus: Sequence[Gpu], wanted: str | None) -> list[str]:
    """Names of the GPUs that CUDA shows, in its order; `wanted` is the environment variable, None when it is not set.

    It lists numbers, or beginnings of names; what follows the first one that is none is not seen.
    """
    if wanted is None:
        return [gpu.uuid for gpu in gpus]
    found: list[str] = []
    for entry in (part.strip() for part in wanted.split(",")):
        named = [gpu.uuid for gpu in gpus if entry and gpu.uuid.startswith(entry)]
        if entry.startswith(PARTITION):
            found.append(entry)
        elif entry.isdecimal() and int(entry) < len(gpus):
            found.append(gpus[int(entry)].uuid)
        elif len(named) == 1:
            found += named
        else:
            break
    return found


def pick(gpus: Sequence[Gpu], wanted: str | None, number: int) -> str:
    """The name of one GPU by CUDA's number. Raises NotFound."""
    seen = visible(gpus, wanted)
    if number < len(seen):
        return seen[number]
    limited = "" if wanted is None else f", of which {VISIBLE}={wanted!r} shows {len(seen)}"
    raise NotFound(f"there is no GPU {number}: this machine has {len(gpus)}{limited}")


class Nvml:
    """The library, opened. `library` is `pynvml`, or what answers like it."""

    def __init__(self, library: Any) -> None:
        """Raises NotFound when the driver is not there."""
        self._library = library
        self._error: type[Exception] = library.NVMLError
        try:
            library.nvmlInit()
        except self._error as error:
            raise NotFound(f"there is no driver for NVIDIA's GPUs: {error}") from error

    def gpus(self) -> list[Gpu]:
        """All GPUs in the order of the bus."""
        api = self._library
        handles = [api.nvmlDeviceGetHandleByIndex(index) for index in range(api.nvmlDeviceGetCount())]
        return [Gpu(_text(api.nvmlDeviceGetUUID(each)), _text(api.nvmlDeviceGetName(each))) for each in handles]

    def name(self, uuid: str) -> str:
        """What a GPU, or a part of one, is called."""
        return _text(self._library.nvmlDeviceGetName(self._library.nvmlDeviceGetHandleByUUID(uuid)))

    def read(self, uuid: str) -> Reading:
        """A GPU, or a part of one, as it is now."""
        api = self._library
        handle = api.nvmlDeviceGetHandleByUUID(uuid)
        memory = api.nvmlDeviceGetMemoryInfo(handle)
        running = self._try(lambda: api.nvmlDeviceGetComputeRunningProcesses(handle)) or ()
        processes = {int(each.pid): int(each.usedGpuMemory) for each in running if each.usedGpuMemory is not None}
        return Reading(int(memory.total), int(memory.used), processes, self._figures(handle))

    def close(self) -> None:
        self._library.nvmlShutdown()

    def _figures(self, handle: Any) -> dict[str, float | int | str]:
        api = self._library
        asked: Mapping[str, Callable[[], Any]] = {
            "temperature_c": lambda: api.nvmlDeviceGetTemperature(handle, api.NVML_TEMPERATURE_GPU),
            "clock_mhz": lambda: api.nvmlDeviceGetClockInfo(handle, api.NVML_CLOCK_SM),
            "memory_clock_mhz": lambda: api.nvmlDeviceGetClockInfo(handle, api.NVML_CLOCK_MEM),
            "utilisation": lambda: api.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            "power_w": lambda: api.nvmlDeviceGetPowerUsage(handle) / 1000,
            "compute_capability": lambda: "{}.{}".format(*api.nvmlDeviceGetCudaComputeCapability(handle)),
        }
        answers = {name: self._try(ask) for name, ask in asked.items()}
        return {name: value for name, value in answers.items() if value is not None}

    def _try(self, ask: Callable[[], Any]) -> Any:
        """An answer that not every GPU has."""
        try:
            return ask()
        except self._error:
            return None


def _text(value: Any) -> str:
    """Old versions of the library answer with bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
