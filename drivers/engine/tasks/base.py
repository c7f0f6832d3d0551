"""What a task of one forward pass is made of: requests become lines, lines share batches, outputs become answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ...contract import Request, TaskResult, TensorView


BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Line:
    """One line of a batch: tensors without the dimension of the batch.

    `length` is what padding may extend, and a measure of the work. Only lines with an equal `shape` share a batch.
    `along` are lines that belong to this one, such as the captions that a picture is compared with.
    """

    inputs: Mapping[str, Tensor]
    length: int
    shape: Hashable = None
    along: Sequence[Line] = ()


@dataclass(frozen=True)
class Outcome:
    """What a request is answered with; at most one of the first three is set."""

    result: TaskResult | None = None
    embeddings: Sequence[Sequence[float]] | None = None
    tensors: Mapping[str, TensorView] | None = None
    truncated: Sequence[bool] = ()


@dataclass(frozen=True)
class Job:
    """A request in pieces: `answer` gets the outputs of its lines in their order; `tokens` is what it reads."""

    lines: Sequence[Line]
    tokens: int
    answer: Callable[[Sequence[Any]], Outcome]


class ForwardTask(Protocol):
    """One task of one model. `options` names what it takes beside its input, with a line for each.

    `batch_tokens`: what its batches hold at most, with padding, for the sake of memory.
    """

    name: ClassVar[str]
    options: ClassVar[Mapping[str, str]]
    batch_tokens: int

    def prepare(self, request: Request) -> Job:
        """Raises BadArgument, TooLarge, NotSupported."""

    def run(self, module: Any, lines: Sequence[Line]) -> Sequence[Any]:
        """The output of each line, all computed in one batch. Raises ValueError for lines that it cannot take."""
