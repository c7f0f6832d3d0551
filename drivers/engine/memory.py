"""Counting bytes: storages that tensors keep alive, what the process and the machine hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from llmos.syscalls.errors import NoDeviceMemory

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
CGROUP_USE = (Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"))
SMAPS = Path("/proc/self/smaps_rollup")
ALLOCATION_FAILED = (
    "can't allocate memory", "not enough memory", "CUDA error: out of memory", "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)  # fmt: skip
"""What is said in a RuntimeError when the system gives no memory, or a device none but to torch's own allocator."""

ASKED = re.compile(r"[Tt]ried to allocate ([0-9.]+) (bytes|KiB|MiB|GiB)")
UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor reachable from a cache object, its layers, lists and maps."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif type(value).__module__.startswith("transformers."):
        yield from tensors_in(vars(value))


def tensors_of(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Parameters and buffers."""
    yield from module.parameters()
    yield from module.buffers()


def device_of(module: torch.nn.Module) -> torch.device:
    """Where a module's weights are; the CPU for one without any."""
    first = next(tensors_of(module), None)
    return torch.device("cpu") if first is None else first.device


def live_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages behind tensors; a storage that several share is counted once."""
    storages: dict[int, int] = {}
    for tensor in tensors:
        if tensor.is_mkldnn:
            storages[id(tensor)] = int(torch.ops.mkldnn._nbytes(tensor))
        else:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def machine_bytes() -> int:
    """What the machine, or the control group around this process, could give in all."""
    import psutil  # asked of the machine's own memory alone: a machine of GPUs may lack it

    return min([psutil.virtual_memory().total, *_read(CGROUP_LIMITS)])


def free_bytes() -> int:
    """What is left of it now; file pages that can be dropped count as free."""
    import psutil

    free = psutil.virtual_memory().available
    limits, used = _read(CGROUP_LIMITS), _read(CGROUP_USE)
    return max(0, min([free, *(limit - use for limit, use in zip(limits, used, strict=False))]))


def process_bytes() -> int:
    """Proportional set size of this process: its own pages, and its share of those it shares.

    The resident set size where the system does not tell.
    """
    try:
        lines = SMAPS.read_text().splitlines()
    except OSError:
        import psutil

        return int(psutil.Process().memory_info().rss)
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def out_of_memory(error: BaseException) -> NoDeviceMemory | None:
    """The error to answer with when `error` means that the system, or a device, gave no memory."""
    asked = bytes_asked(str(error))
    if isinstance(error, torch.OutOfMemoryError):
        return NoDeviceMemory(f"the device gave no memory: {str(error).partition('. ')[0]}", needed=asked)
    if not isinstance(error, MemoryError) and not any(words in str(error) for words in ALLOCATION_FAILED):
        return None
    return NoDeviceMemory(f"the system gave no memory: {error}", needed=asked, free=free_bytes())


def bytes_asked(said: str) -> int:
    """How many bytes the allocation wanted that failed with these words of torch; 0 where they tell nothing."""
    found = ASKED.search(said)
    return 0 if found is None else int(float(found[1]) * UNITS[found[2]])


def _read(files: Iterable[Path]) -> list[int]:
    """The numbers in the files that exist and hold one; a control group without a limit says `max`."""
    found = []
    for file in files:
        try:
            found.append(int(file.read_text()))
        except (OSError, ValueError):
            continue
    return found
