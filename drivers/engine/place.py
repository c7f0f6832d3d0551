"""Where the models of an engine live: one device, how much of it is free, and how it fails.

The engine is the same for every device: whatever it makes lies on the device of the model's weights, and what differs
between devices stands here. `Processor` is the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from llmos.syscalls.errors import NoDeviceMemory

from . import memory

Report = Callable[[int, int], None]
"""Called with the bytes done and all bytes: often, and as a sign of life."""


class Rested(Protocol):
    """Tensors whose memory on the device was given back, and what brings their content back."""

    @property
    def host_bytes(self) -> int:
        """What it takes of the host's memory meanwhile."""

    def wake(self, report: Report) -> str:
        """Fill them again; why they lie elsewhere now, empty where every address is what it was.

        Raises what `Place.no_memory` knows; the tensors are empty then.
        """


class Place(Protocol):
    """One device as the engine sees it."""

    @property
    def device(self) -> torch.device:
        """Where weights, pages and all that is computed from them lie."""

    def free_bytes(self) -> int:
        """What could be allocated now; what other processes hold is not counted as free."""

    def no_memory(self, error: BaseException) -> NoDeviceMemory | None:
        """The error to answer with when `error` means that the device, or the system, gave no memory."""

    def fault(self, error: BaseException) -> str | None:
        """The cause, when `error` means that the device is of no use to this process any more; the process must end."""

    def dtype(self, stored: torch.dtype) -> torch.dtype:
        """What to compute in for weights that are stored as `stored`, where nobody says."""

    def pages(self, wanted: int, least: int, page_bytes: int) -> int:
        """How many pages of keys and values a model gets that could use `wanted`: no fewer than `least`, though they
        may not fit."""

    def move(self, module: Any, report: Report) -> None:
        """Bring a module whose weights lie in files or host memory to the device, in place."""

    def rest(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> Rested | None:
        """Give back the memory of tensors: the content of `kept` goes to host memory, that of `dropped` is lost.

        None, with nothing changed, where a model that sleeps is forgotten and loaded again from its files.
        """

    def collect(self) -> None:
        """Give back what is held and not used."""


class Processor:
    """The CPU: weights are used where the files are mapped or packed, and sleep in the page cache."""

    device = torch.device("cpu")

    def free_bytes(self) -> int:
        return memory.free_bytes()

    def no_memory(self, error: BaseException) -> NoDeviceMemory | None:
        return memory.out_of_memory(error)

    def fault(self, error: BaseException) -> str | None:
        return None

    def dtype(self, stored: torch.dtype) -> torch.dtype:
        """A CPU has no fast float16."""
        return torch.bfloat16 if stored == torch.bfloat16 else torch.float32

    def pages(self, wanted: int, least: int, page_bytes: int) -> int:
        """Memory of the machine is given when it is used, so that nothing is gained by asking for less."""
        return wanted

    def move(self, module: Any, report: Report) -> None:
        """It lies there already."""

    def rest(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> Rested | None:
        """Files are mapped again faster than a copy is made."""
        return None

    def collect(self) -> None:
        """The system takes it back by itself."""
