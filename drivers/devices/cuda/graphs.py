"""Steps of fixed shape as CUDA graphs: one launch for all of a decode step, and a host that does not wait for it.

A step that cannot be captured (it asks the host for something, or allocates in a way that a graph cannot) runs as it
is; why is said once and kept. All graphs of a model share one pool of memory, so the largest is to be made first.
Numbers go to the device and come back through pinned memory, in the order of the stream, with an event to wait for.
See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...engine.capture import BUCKETS, Deferred

WARM_UPS = 2
"""Runs before a capture: kernels are compiled, libraries choose theirs and make their workspaces."""


class Event:
    """Numbers on their way, in pinned memory when the event has come."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        self._numbers.copy_(numbers, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def wait(self) -> list[int]:
        self._event.synchronize()
        found: list[int] = self._numbers.tolist()
        return found


class CudaGraphs:
    """The captured steps of one model on one device; `what` names the model in what is said."""

    def __init__(self, device: torch.device, what: str, buckets: Sequence[int] = BUCKETS) -> None:
        self.buckets: Sequence[int] = tuple(buckets)
        self.refused: dict[str, list[str]] = {}
        self._device, self._what = device, what
        self._pool: Any = None
        self._stream: torch.cuda.Stream | None = None

    def make(self, run: Callable[[], None], what: str) -> Callable[[], None]:
        """A graph of a run, or the run itself where it cannot be captured."""
        if self._stream is None:
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                run()
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                run()
        except RuntimeError as error:
            if torch.cuda.is_current_stream_capturing():
                raise
            self._refuse(what, error)
            return run
        replay: Callable[[], None] = graph.replay
        return replay

    def up(self, values: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
        pinned = torch.tensor(values, dtype=dtype or torch.long, pin_memory=True)
        return pinned.to(self._device, non_blocking=True)

    def down(self, numbers: Tensor) -> Deferred:
        return Event(numbers)

    def forget(self) -> None:
        """Let the memory of graphs that were dropped go; the next ones are captured anew."""
        self._pool = None
        self._stream = None
        self.refused.clear()

    def _refuse(self, what: str, error: BaseException) -> None:
        while error.__context__ is not None:  # to end a capture that was broken is an error too
            error = error.__context__
        said = str(error).partition("\n")[0][:200]
        self.refused.setdefault(said, []).append(what)
        print(f"{self._what}: {what} is not captured as a graph, and runs eagerly: {said}", file=sys.stderr)
