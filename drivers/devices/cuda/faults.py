"""Which errors leave a GPU's context useless: whatever is asked of it afterwards fails, and only a new process helps.

The CUDA Runtime API says so of each of these in its description of `cudaError`.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmos.syscalls.errors import DeviceFault

MARKS = ("CUDA", "cuda", "CUBLAS", "CUDNN", "NCCL", "Triton Error")
"""Words of whoever passes an error of the driver on."""

STICKY = (
    "illegal memory access", "device-side assert", "unspecified launch failure", "misaligned address",
    "illegal instruction", "invalid program counter", "operation not supported on global/shared address space",
    "hardware stack error", "the launch timed out", "uncorrectable ECC", "uncorrectable NVLink", "context is destroyed",
    "contained error", "CUBLAS_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_EXECUTION_FAILED", "GPU has fallen off the bus",
    "GPU is lost",
)  # fmt: skip


def sticky(said: str) -> str | None:
    """The line that tells, when an error's text means that the context is lost."""
    for line in said.splitlines():
        if any(mark in line for mark in MARKS) and any(words in line for words in STICKY):
            return line.strip()
    return None


def cause(error: BaseException) -> str | None:
    """The same of an error and of those that it came from."""
    return next((found for each in _chain(error) if (found := sticky(str(each))) is not None), None)


def fault(said: str) -> DeviceFault:
    """What a request ends with, and then the process."""
    return DeviceFault(f"the GPU cannot be used by this process any more: {said}", cause=said)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
