"""Op tables and engines of the device under measurement, without the processes and messages around them."""

from __future__ import annotations

import importlib.util
import os

from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable


def op_table(device: str) -> OpTable:
    """Everything that this tree brings for a kind of device."""
    made = OpTable()
    register_reference(made)
    if device == "cpu":
        from llmos.drivers.ops.cpu.ops import register_native

        register_native(made)
    if importlib.util.find_spec("triton") and (device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"):
        from llmos.drivers.ops.triton.ops import register_triton

        register_triton(made)
    return made
