"""Of two answers the better one is to be likelier (DPO)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.batches import Batch
from ..data.example import IGNORED
from . import chunked
from .causal import answered, of_labels
from .entropy import Entropy
from .protocol import Outcome, average

Without = Callable[[nn.Module], AbstractContextManager[object]]


def without_adapter(module: nn.Module) -> AbstractContextManager[object]:
    """The module as it was before: for adapters of peft, whose base is the reference."""
    made: AbstractContextManager[object] = module.disable_adapter()  # type: ignore[operator]
    return made


@dataclass(frozen=True)
class Preference:
    """Rows hold the better answers, `others[0]` the worse ones, after the same prompts (Rafailov et al. 2023).

    The loss of a pair is -log sigmoid(`beta` * margin): by how much the better answer has become likelier against the
    worse one, since the reference, which is `base`, or without one the module inside `reference(module)`. With `room`,
    so many scores are there at once (`chunked`, for modules that it fits), with 0 all of them.
    """

    head: ClassVar[str] = "causal-lm"
    beta: float = 0.1
    reference: Without = without_adapter
    base: nn.Module | None = None
    room: int = 0

    def prepare(self, batch: Batch, training: bool) -> Batch:
        return batch

    def weight(self, batch: Batch) -> float:
        return float(len(batch.input_ids))

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        margin = self._margin(module, batch)
        with torch.no_grad():
            before = self._before(module, batch)
        gained = self.beta * (margin - before)
        said = gained.detach()
        return Outcome(-functional.logsigmoid(gained).sum(), {"right": (said > 0).sum()}, said=said)

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        return {"loss": average(sums), "accuracy": sums["right"] / max(1.0, sums["weight"])}

    def _before(self, module: nn.Module, batch: Batch) -> Tensor:
        """The margin of the reference, which answers without dropout."""
        if self.base is not None:
            return self._margin(self.base, batch)
        was = module.training
        with self.reference(module):
            module.eval()
            margin = self._margin(module, batch)
            module.train(was)
        return margin

    def _margin(self, module: nn.Module, batch: Batch) -> Tensor:
        return likelihood(module, batch, self.room) - likelihood(module, batch.others[0], self.room)


def likelihood(module: nn.Module, batch: Batch, room: int = 0) -> Tensor:
    """float32 [rows]: the log-probability of each row's tokens that have a label; `room` as `Preference` has it."""
    targets = batch.labels[:, 1:]
    kept = targets != IGNORED
    if room:
        losses, _ = chunked.losses_of(module, batch, Entropy(), room)
    else:
        scores = of_labels(answered(module, batch).logits, batch)[kept].float()
        losses = functional.cross_entropy(scores, targets[kept], reduction="none")
    return torch.zeros(len(kept), device=losses.device).index_add(0, kept.nonzero()[:, 0], -losses)
