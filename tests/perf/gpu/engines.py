"""Engines of the device under measurement; the one place that knows how a device makes its engine."""

from __future__ import annotations

from llmos.drivers.engine.engine import Engine

from .tables import op_table


def make_engine(device: str, eager: bool) -> Engine:
    """An engine that owns the whole device. `eager`: without captured steps, on CUDA."""
    return Engine(op_table(device))
