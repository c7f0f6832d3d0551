"""Puts the ops in Triton into an op table."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from ..table import OpTable
from . import attend, experts, gates, kv, lora, norms, quantized, sampling
from .variants import Variant

NAME = "triton"

MODULES: Sequence[ModuleType] = (norms, gates, attend, kv, lora, experts, sampling, quantized)
"""Each has `register(table)` and `VARIANTS`."""


def register_triton(table: OpTable) -> None:
    """Add every kernel, after the reference. Raises ImportError where there is no Triton."""
    for module in MODULES:
        module.register(table)


def variants() -> list[Variant]:
    """Everything that the kernels launch."""
    return [variant for module in MODULES for variant in module.VARIANTS]
