"""A GPU as the place where an engine's models live."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import NotSupported

from ...engine.capture import Capture
from ...engine.memory import out_of_memory
from ...engine.place import Anchor, Processor, Report, Rested
from ...engine.steps import PAGE_TOKENS
from ...ops.cpu.build import default_cache
from . import copies, resting
from .anchors import Pools, memories
from .copies import Lanes, StreamLanes
from .graphs import CudaGraphs
from .segments import Segments, library

ROWS = 256
"""Steps of more rows take about as long for each row: attention, not the weights, is then what takes the time."""
FLOAT8_SINCE = (8, 9)
"""Compute capability of the first GPUs that multiply floating numbers of 8 bits."""

ROW_TOKENS = 2048
"""Tokens of each of `PAGED_ROWS` requests that pages are wanted for."""
PAGED_ROWS = 64


def page_count(context: int, page_bytes: int, room: int) -> int:
    """How many pages a model gets: for `PAGED_ROWS` requests, as many as fit into `room` bytes, and for its whole
    context once however little room there is."""
    least = -(-context // PAGE_TOKENS) + 1
    wanted = -(-max(context, PAGED_ROWS * min(context, ROW_TOKENS)) // PAGE_TOKENS) + 1
    return max(least, min(wanted, room // page_bytes))


class CudaPlace(Processor):
    """One GPU, and a stream of its own for copies.

    `share`: what the pages of a model take at most of the memory that is free beside its weights.
    """

    rows = ROWS

    def __init__(self, device: torch.device, share: float, lanes: Lanes | None = None) -> None:
        self.device = device
        self._share = share
        self._lanes = StreamLanes(device) if lanes is None else lanes
        self._pools: Pools | NotSupported | None = None

    def free_bytes(self) -> int:
        """What the driver would give, and what torch holds and does not use."""
        free, _total = torch.cuda.mem_get_info(self.device)
        return free + torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)

    def dtype(self, stored: torch.dtype) -> torch.dtype:
        """GPUs compute in all of them."""
        return stored

    def activations(self, kind: str) -> str:
        """Weights that are whole numbers save reading alone; floating ones are multiplied as they are where the
        hardware can."""
        able = kind == "float" and torch.cuda.get_device_capability(self.device) >= FLOAT8_SINCE
        return "float8" if able else "model"

    def pages(self, context: int, page_bytes: int, taken: int) -> int:
        return page_count(context, page_bytes, int(self._share * max(0, self.free_bytes() - taken)))

    def capture(self, what: str) -> Capture | None:
        return CudaGraphs(self.device, what)

    def move(self, module: Any, report: Report) -> None:
        copies.move(module, self.device, self._lanes, report)

    def anchor(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> Anchor:
        if self._pools is None:
            try:
                self._pools = Pools(Segments(library(default_cache())))
            except NotSupported as error:
                self._pools = error
        if isinstance(self._pools, NotSupported):
            return Anchor(None, str(self._pools))
        return self._pools.anchor(kept, dropped, self.device)

    def dropped_bytes(self) -> int:
        """What torch counts as taken, and was given back, since its addresses are kept."""
        return self._pools.segments.dropped_bytes if isinstance(self._pools, Pools) else 0

    def rest(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> Rested | None:
        """None also where the host has no memory to pin."""
        try:
            if not isinstance(self._pools, Pools):
                return resting.put(kept, dropped, self._lanes)
            books = self._pools.segments
            return resting.put(
                kept, dropped, self._lanes, memories=lambda storages: memories(storages, books, self._settled)
            )
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error) is None:
                raise
            return None

    def _settled(self) -> None:
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()

    def collect(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()
