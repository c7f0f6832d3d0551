"""What all kernels share, so that one source is right on the device and in Triton's interpreter.

The interpreter computes with bfloat16 as if its bits were integers and says nothing, it knows no libdevice, and it
cannot time. So every kernel casts what it loads to float32, gives `tl.dot` operands of the dtype that `dot_dtype`
names, adds up in float32, and casts once more where it stores; launches pick their configuration from a table, not by
autotuning; and nothing but `tl` is called. Whether kernels are interpreted is settled when they are defined: once a
process, by TRITON_INTERPRET=1 in its environment.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl

from ..table import Spec

INTERPRET = os.environ.get("TRITON_INTERPRET") == "1"

DTYPES = {"float32": tl.float32, "bfloat16": tl.bfloat16, "float16": tl.float16}


def served(spec: Spec) -> tuple[bool, str]:
    """What any kernel serves: floating numbers on a CUDA device, or on the processor in the interpreter."""
    wanted = "cpu" if INTERPRET else "cuda"
    if spec.get("device") != wanted:
        return False, f"Triton's kernels run on {wanted} here"
    if spec.get("dtype") not in DTYPES:
        return False, f"dtype {spec.get('dtype')}; kernels take {', '.join(DTYPES)}"
    return True, ""


def dot_dtype(dtype: torch.dtype) -> Any:
    """What operands of `tl.dot` are cast to, a constexpr of the kernel: their own dtype, float32 when interpreted."""
    return tl.float32 if INTERPRET else DTYPES[str(dtype).removeprefix("torch.")]


def cdiv(count: int, size: int) -> int:
    """How many pieces of a size cover so many."""
    return -(-count // size)


def power_of_2(count: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << max(0, count - 1).bit_length()


@triton.jit
def tanh(x):
    """Of float32, from exp of what is not positive: libdevice's is missing in the interpreter."""
    small = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - small) / (1.0 + small)
    return tl.where(x < 0.0, -size, size)
