"""Which errors mean that a context is lost."""

from __future__ import annotations

import pytest

from llmos.drivers.devices.cuda import faults
from llmos.syscalls.errors import NotSupported

LOST = (
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported at some"
    " other API call\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1",
    "CUDA error: device-side assert triggered",
    "CUDA error: unspecified launch failure",
    "CUDA error: misaligned address",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: the launch timed out and was terminated",
    "Triton Error [CUDA]: an illegal memory access was encountered",
    "CUDA driver error: an illegal instruction was encountered",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`",
)
FINE = (
    "CUDA out of memory. Tried to allocate 20.00 GiB",
    "CUDA error: invalid argument",
    "CUDA error: invalid configuration argument",
    "CUDA error: no kernel image is available for execution on the device",
    "Triton Error [CUDA]: out of resource: shared memory",
    "the model says: an illegal memory access was encountered",
    "mat1 and mat2 shapes cannot be multiplied",
    "",
)


@pytest.mark.parametrize("said", LOST)
def test_a_lost_context_is_known_by_the_line_that_says_so(said: str) -> None:
    assert faults.sticky(said) == said.splitlines()[0]


@pytest.mark.parametrize("said", FINE)
def test_other_errors_leave_the_process_alone(said: str) -> None:
    assert faults.sticky(said) is None and faults.cause(RuntimeError(said)) is None


def test_what_an_error_came_from_counts() -> None:
    try:
        try:
            raise RuntimeError(LOST[1])
        except RuntimeError as error:
            raise NotSupported("it does not run") from error
    except NotSupported as error:
        assert faults.cause(error) == LOST[1]
    assert faults.cause(NotSupported("it does not run")) is None


def test_a_ring_of_causes_ends() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert faults.cause(first) is None


def test_the_fault_tells_the_cause() -> None:
    made = faults.fault(LOST[1])
    assert made.cause == LOST[1] and LOST[1] in str(made)
