"""Several objectives of one model, a batch of one of them at a time; classes of each are a part of one head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import nn

from ..data.batches import Batch
from .protocol import Around, Objective, Outcome, average


class Outputs(nn.Module):
    """A module of which some outputs of the head are seen, as if it had no others; it trains where that does."""

    def __init__(self, module: nn.Module, places: slice) -> None:
        super().__init__()
        self.__dict__["_whole"] = module  # not a part of this one
        self._places, self.training = places, module.training

    def forward(self, **given: Any) -> Any:
        """Its answer with `logits` [.., outputs]."""
        answer = self.__dict__["_whole"](**given)
        return SimpleNamespace(**{**answer, "logits": answer.logits[..., self._places]})


@dataclass(frozen=True)
class Part(Around):
    """One task: an objective of some outputs of the head, or of the whole module where `places` is None. `share` is
    how much its mean loss counts beside those of others."""

    name: str
    of: Objective
    share: float = 1.0
    places: slice | None = None

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        return self.of.loss(module if self.places is None else Outputs(module, self.places), batch)


@dataclass(frozen=True)
class Several:
    """The losses of tasks, `batch.task` of which a batch is.

    Each batch counts as the mean loss of its task, times the task's share: so a task of long texts does not outweigh
    one of single numbers.
    """

    parts: Sequence[Part]
    head: ClassVar[str] = ""

    def prepare(self, batch: Batch, training: bool) -> Batch:
        return self.parts[batch.task].prepare(batch, training)

    def weight(self, batch: Batch) -> float:
        part = self.parts[batch.task]
        return part.share if part.weight(batch) else 0.0

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        part = self.parts[batch.task]
        outcome = part.loss(module, batch)
        return Outcome(outcome.total * (part.share / (part.weight(batch) or 1.0)))

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        return {"loss": average(sums)}
