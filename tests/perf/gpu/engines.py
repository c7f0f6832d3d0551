"""Engines of the device under measurement; the one place that knows how a device makes its engine."""

from __future__ import annotations

from collections.abc import Callable

import torch
from llmos.drivers.engine.engine import Engine

from .tables import op_table

KV_SHARE = 0.5
"""Of the memory beside the weights, as the device has it where nobody says."""

Note = Callable[[int], None]


def make_engine(device: str, eager: bool, note: Note) -> Engine:
    """An engine that has the whole device. `eager`: steps are planned as ever and launched one op after the other.
    `note` is called with what torch took of a GPU at most, before pages of keys and values are made."""
    table = op_table(device)
    if device != "cuda":
        return Engine(table)
    from llmos.drivers.devices.cuda.place import CudaPlace
    from llmos.drivers.engine.capture import Capture, Eager

    class Watched(CudaPlace):
        def pages(self, context: int, page_bytes: int, taken: int) -> int:
            note(torch.cuda.max_memory_allocated(self.device))
            return super().pages(context, page_bytes, taken)

    class Uncaptured(Watched):
        def capture(self, what: str) -> Capture:
            return Eager(self.device)

    place = (Uncaptured if eager else Watched)(torch.device("cuda", 0), KV_SHARE)
    return Engine(table, place=place)
