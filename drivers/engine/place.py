"""Where the models of an engine live: one device, how much of it is free, and how it fails.

The engine is the same for every device: whatever it makes lies on the device of the model's weights, and what differs
between devices stands here. `Processor` is the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ..contract import LoadSettings, ModelSource, ProgressSink
from . import filed, memory
from .capture import Capture
from .pages import pool_pages

if TYPE_CHECKING:
    from .inputs import Prepared

ROWS = 64
"""Requests of one model at a time on the rungs that batch."""

Report = Callable[[int, int], None]
"""Called with the bytes done and all bytes: often, and as a sign of life."""


@dataclass(frozen=True)
class Anchor:
    """What keeps the addresses of tensors while they sleep.

    `held` is to be kept as long as they are; `why` they may lie elsewhere afterwards, where a place could know better.
    """

    held: object = None
    why: str = ""


class Rested(Protocol):
    """Tensors whose memory on the device was given back, and what brings their content back."""

    @property
    def host_bytes(self) -> int:
        """What it takes of the host's memory meanwhile."""

    def wake(self, report: Report) -> str:
        """Fill them again; why they lie elsewhere now, empty where every address is what it was.

        Raises what allocating raises; the tensors are empty then, and it can be tried again.
        """


class Shares(Protocol):
    """The shares of one model that other processes have, seen from the one that serves it."""

    @property
    def ranks(self) -> int:
        """Among how many the model is split, this process included."""

    def settle(self) -> int:
        """Wait until all are ready for steps; the bytes of weights that the others hold."""

    def computing(self, prepared: Prepared) -> AbstractContextManager[None]:
        """A step that the others compute, too; an error in it ends this process."""

    def drop(self) -> None:
        """Let the others forget the model, however far they are."""


class Place(Protocol):
    """One device as the engine sees it."""

    @property
    def device(self) -> torch.device:
        """Where weights, pages and all that is computed from them lie."""

    @property
    def rows(self) -> int:
        """How many requests of one model on rung P may take part in a step."""

    def free_bytes(self) -> int:
        """What could be allocated now; what other processes hold is not counted as free."""

    def dtype(self, stored: torch.dtype) -> torch.dtype:
        """What to compute in for weights that are stored as `stored`, where nobody says."""

    def activations(self, kind: str) -> str:
        """What inputs of products with quantized weights are rounded to, where nobody says: `kind` of the weights is
        `int` or `float`, the answer one of `quantized_linear.ACTIVATIONS`."""

    def pages(self, context: int, page_bytes: int, taken: int) -> int:
        """How many pages of keys and values a model gets whose sequences have up to `context` tokens, and of which
        `taken` bytes of other things will be there too. Enough for one sequence, though they may not fit."""

    def begin(self, source: ModelSource, settings: LoadSettings, pages: int, progress: ProgressSink) -> Shares | None:
        """Let other processes begin to load their shares, with so many pages; None where this one has all of it."""

    def divide(self, module: Any, path: str) -> int:
        """Leave of a module, which may be on the meta device, the share of this process; how many processes have one.

        Raises NotSupported.
        """

    def capture(self, what: str) -> Capture | None:
        """What repeats the decode steps of a model, which `what` names; None where the host waits for each step and
        chooses its tokens."""

    def move(self, module: Any, report: Report) -> None:
        """Bring a module whose weights lie in files or host memory to the device, in place."""

    def anchor(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> Anchor:
        """Get tensors ready to keep their addresses while they rest, before anything is made for those. They may lie
        elsewhere then; the content of `dropped` may be lost."""

    def rest(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> Rested | None:
        """Give back the memory of tensors: the content of `kept` goes to host memory, that of `dropped` is lost.

        None, with nothing changed, where a model that sleeps is forgotten and loaded again from its files.
        """

    def collect(self) -> None:
        """Give back what is held and not used."""


class Processor:
    """The CPU: weights are used where the files are mapped or packed, and sleep in files."""

    device = torch.device("cpu")
    rows = ROWS

    def free_bytes(self) -> int:
        return memory.free_bytes()

    def dtype(self, stored: torch.dtype) -> torch.dtype:
        """A CPU has no fast float16."""
        return torch.bfloat16 if stored == torch.bfloat16 else torch.float32

    def activations(self, kind: str) -> str:
        """Processors multiply whole numbers of 8 bits much faster than others, and floating ones of 8 bits not at all.

        The same where no compiler is, so that none changes an answer."""
        return "int8" if kind == "int" else "model"

    def pages(self, context: int, page_bytes: int, taken: int) -> int:
        """Memory of the machine is given when it is used, so that nothing is gained by asking for less."""
        return pool_pages(context)

    def begin(self, source: ModelSource, settings: LoadSettings, pages: int, progress: ProgressSink) -> Shares | None:
        return None

    def divide(self, module: Any, path: str) -> int:
        return 1

    def capture(self, what: str) -> Capture | None:
        """Steps are computed on the cores that would plan the next ones meanwhile."""
        return None

    def move(self, module: Any, report: Report) -> None:
        """It lies there already."""

    def anchor(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> Anchor:
        """Nothing rests here."""
        return Anchor()

    def rest(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> Rested | None:
        """They sleep in a file, at the addresses that they have."""
        return filed.put(kept, dropped)

    def collect(self) -> None:
        """The system takes it back by itself."""


PROCESSOR: Place = Processor()
"""It keeps nothing, so that one serves all."""
