"""Engines of the device under measurement; the one place that knows how a device makes its engine."""

from __future__ import annotations

import torch
from llmos.drivers.engine.engine import Engine

from .tables import op_table

KV_SHARE = 0.5
"""Of the memory beside the weights, as the device has it where nobody says."""


def make_engine(device: str, eager: bool) -> Engine:
    """An engine that has the whole device. `eager`: steps are planned as ever and launched one op after the other."""
    table = op_table(device)
    if device != "cuda":
        return Engine(table)
    from llmos.drivers.devices.cuda.place import CudaPlace
    from llmos.drivers.engine.capture import Capture, Eager

    class Uncaptured(CudaPlace):
        def capture(self, what: str) -> Capture:
            return Eager(self.device)

    place = (Uncaptured if eager else CudaPlace)(torch.device("cuda", 0), KV_SHARE)
    return Engine(table, place=place)
