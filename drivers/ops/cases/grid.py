"""All cases of all ops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType

from . import attention, encoders, experts, layers, linear, lora, quantized, sampling
from .case import Case

MODULES: Sequence[ModuleType] = (attention, encoders, experts, layers, linear, lora, quantized, sampling)
"""Each has `cases(tiny)`."""


def grid(tiny: bool, ops: Sequence[str] = ()) -> Iterator[Case]:
    """Cases of these ops, or of all; `tiny` ones take no longer than Triton's interpreter and a slow processor need."""
    for module in MODULES:
        for case in module.cases(tiny):
            if not ops or case.op in ops:
                yield case
