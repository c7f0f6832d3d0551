"""How a device repeats a step of fixed tensors, and how numbers go there and come back without anybody waiting.

A device whose host does not wait for it has a `Capture`; the graphs of CUDA are one (`drivers/devices/cuda/graphs.py`).
`Eager` is the plain one: it repeats a step by running it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Rows of the steps that are captured; a step of fewer rows goes through the next larger one."""


class Deferred(Protocol):
    """Numbers on their way from the device."""

    def wait(self) -> list[int]:
        """The numbers, once they are here. Raises what the device raises for what was under way."""


class Capture(Protocol):
    """Repeats steps. `buckets` are the numbers of rows that it makes steps for, ascending; `refused` holds the steps
    that could not be captured, and run as they are, by the reason."""

    buckets: Sequence[int]
    refused: dict[str, list[str]]

    def make(self, run: Callable[[], None], what: str) -> Callable[[], None]:
        """What does as `run` does now, each time it is called. `run` reads and writes tensors that stay where they are,
        waits for nothing, and may be called several times here. `what` it is, for `refused`."""

    def up(self, values: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
        """A tensor on the device of numbers on the host; int64 unless it says otherwise."""

    def down(self, numbers: Tensor) -> Deferred:
        """Integers [N] as they are when what was asked of the device until now is done."""

    def forget(self) -> None:
        """What was made is not called any more."""


class Known:
    """Numbers that are here already."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers: list[int] = numbers.tolist()

    def wait(self) -> list[int]:
        return self._numbers


class Eager:
    """Runs each step as it is, on any device; the host waits for its numbers at once."""

    def __init__(self, device: torch.device, buckets: Sequence[int] = BUCKETS) -> None:
        self.buckets = tuple(buckets)
        self.refused: dict[str, list[str]] = {}
        self._device = device

    def make(self, run: Callable[[], None], what: str) -> Callable[[], None]:
        return run

    def up(self, values: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
        return torch.tensor(values, dtype=dtype or torch.long, device=self._device)

    def down(self, numbers: Tensor) -> Deferred:
        return Known(numbers)

    def forget(self) -> None:
        pass
