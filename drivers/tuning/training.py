"""What a training run is given, and what it tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from .aids import Backward
from .checkpoint import Checkpoints
from .data.batches import Batch
from .judging import Evaluated
from .objectives.protocol import Loss, Objective
from .recipe import Recipe


@dataclass(frozen=True)
class Progress:
    """`stage`: evaluate, train, checkpoint; `values` are what is known then, `step` the updates made so far."""

    step: int
    steps: int
    stage: str
    values: dict[str, float]


@dataclass(frozen=True)
class Report:
    """`reason`: done, or early where the held-out loss no longer fell. `before` and `after` are held-out figures.

    `seconds` are those of training and evaluating, waits for others included; `tokens` without padding; `looked` is
    what each of `Training.looks` has found before and after.
    """

    steps: int
    tokens: int
    seconds: float
    reason: str
    before: dict[str, float]
    after: dict[str, float]
    best_step: int
    skipped: int
    looked: Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, Tensor]]] = field(default_factory=dict)


class Companion(Protocol):
    """What a method does beside the loop, such as giving ranks to the layers that need them."""

    def stepped(self, step: int) -> None:
        """After an update, which follows `step` others, while its gradients are there."""

    def states(self) -> dict[str, Tensor]:
        """What it goes on from after an interruption."""

    def restore(self, states: Mapping[str, Tensor]) -> None: ...


@dataclass(frozen=True)
class Looked:
    """`figures` go beside those of held-out rows; `tensors` are what a report is made of, and kept in checkpoints."""

    figures: Mapping[str, float]
    tensors: Mapping[str, Tensor]


class Look(Protocol):
    """Something beside the held-out rows that is looked at before the first step and after the last."""

    def look(self, module: nn.Module, yield_: Callable[[], None]) -> Looked:
        """What the module, which does not train meanwhile, comes to; `yield_` is called now and then."""

    def compared(
        self, before: Mapping[str, Tensor], after: Mapping[str, Tensor], between: Callable[[], None]
    ) -> dict[str, Any]:
        """What a report says of the tensors of both looks, to stand in it by name: `figures` join those that are
        there."""


@dataclass
class Training:
    """What is trained. The module stands on the device of its parameters; batches are moved there.

    Attributes:
        module: what requires a gradient moves, and is float32.
        batches: by position, which counts on through the epochs; their number is that of one epoch.
        held_out: what is evaluated on, the same each time it is asked for; empty for no evaluation.
        labels: names of classes, for figures of entities.
        progress: called after each step, evaluation and checkpoint.
        checkpoints: where the run is kept and goes on from; None for neither.
        backward: another way to add gradients than `loss.backward()` (`aids`); `loss` likewise.
        mark: is told the module and the call to make between its layers, before anything else.
        companion: of the method; None for most.
        asked: whether somebody wants a checkpoint after this step.
        clock: seconds.
        judge: what held-out rows are evaluated with, where it is not `objective`.
        evaluated: called at the end with the first and the last evaluation in full, where there were any.
        looks: what else is looked at, by name.
    """

    module: nn.Module
    objective: Objective
    recipe: Recipe
    batches: Sequence[Batch]
    held_out: Sequence[Batch] | Iterable[Batch] = ()
    labels: Sequence[str] = ()
    progress: Callable[[Progress], None] = lambda _: None
    checkpoints: Checkpoints | None = None
    loss: Loss | None = None
    backward: Backward | None = None
    mark: Callable[[nn.Module, Callable[[], None]], object] | None = None
    companion: Companion | None = None
    asked: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    judge: Objective | None = None
    evaluated: Callable[[Evaluated, Evaluated], object] | None = None
    looks: Mapping[str, Look] = field(default_factory=dict)


@dataclass(frozen=True)
class Due:
    """What a step is to learn from: its micro-batches, ready, and what the sum of their losses is divided by."""

    micro: Sequence[Batch]
    weight: float
