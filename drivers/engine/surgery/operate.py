"""The whole operation on a loaded model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ...ops.table import OpTable
from .merged import merge
from .units import fused_norm, fused_unit


@dataclass
class Report:
    """How many modules were replaced."""

    merged: int = 0
    norms: int = 0
    units: int = 0


def operate(model: nn.Module, ops: OpTable) -> Report:
    """Replace what can be replaced, in place; weights are moved, never kept twice."""
    report = Report()
    first = next(iter(model.parameters()))
    spec = {"device": first.device.type, "dtype": str(first.dtype).removeprefix("torch.")}
    for module in list(model.modules()):
        report.merged += merge(module)
    makers: tuple[tuple[str, Callable[..., nn.Module | None]], ...] = (("norms", fused_norm), ("units", fused_unit))
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            for count, maker in makers:
                made = maker(child, ops, spec)
                if made is not None:
                    setattr(module, name, made)
                    setattr(report, count, getattr(report, count) + 1)
                    break
    return report
