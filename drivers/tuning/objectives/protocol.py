"""What an objective is, and the most common kind: items that get a score for each class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.batches import Batch
from ..data.example import IGNORED


@dataclass(frozen=True)
class Outcome:
    """What a module gave for a micro-batch.

    `total` is the sum of the losses of its items, a float32 scalar with its graph; `sums` are figures that add up over
    micro-batches, as scalars without a graph. `scores`, float32 [items, classes], is there for aids that compare two
    passes; None where an objective has none. `said`, without a graph, is what else is judged item by item: scores of
    classes that may apply, numbers, first and last tokens, margins (`metrics.by_objective.Gathered`).
    """

    total: Tensor
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    scores: Tensor | None = None
    said: Tensor | None = None


Loss = Callable[[nn.Module, Batch], Outcome]


class Objective(Protocol):
    """What is learnt. `head` is the kind of module it needs, by the library's names (`causal-lm`, `masked-lm`, ...)."""

    @property
    def head(self) -> str: ...

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """The batch with what is drawn at random for it; the same each time where it is not for training."""

    def weight(self, batch: Batch) -> float:
        """What the sum of losses is divided by, over all micro-batches of a step; known before any pass."""

    def loss(self, module: nn.Module, batch: Batch) -> Outcome: ...

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Figures for people out of `Outcome.sums`, which have been added up, with `loss` and `weight`."""


class Around:
    """An objective around another one, `of`, which says all but the loss."""

    of: Objective

    @property
    def head(self) -> str:
        return self.of.head

    def prepare(self, batch: Batch, training: bool) -> Batch:
        return self.of.prepare(batch, training)

    def weight(self, batch: Batch) -> float:
        return self.of.weight(batch)

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        return self.of.summary(sums)


def inputs(batch: Batch) -> dict[str, Tensor]:
    """What the module gets: positions where rows hold several examples, which tell them apart, else a mask of tokens.

    Both at once would not do: the library looks for examples in positions only where there is no mask.
    """
    given = {"input_ids": batch.input_ids}
    given |= {"position_ids": batch.position_ids} if batch.packed else {"attention_mask": batch.attention_mask}
    return given if batch.kinds is None else given | {"token_type_ids": batch.kinds}


def average(sums: Mapping[str, float]) -> float:
    """The mean loss; 0 where nothing was to be learnt."""
    return sums["loss"] / sums["weight"] if sums["weight"] else 0.0


@dataclass(frozen=True)
class Scored(ABC):
    """An objective that is the cross-entropy of items, each with a score for each class.

    `smoothing` goes to all classes alike (label smoothing, Szegedy et al. 2016); `class_weights`, float32 [classes],
    count the classes differently: the mean is the weighted one, as in `torch.nn.CrossEntropyLoss`.
    """

    head: ClassVar[str] = ""
    smoothing: float = 0.0
    class_weights: Tensor | None = None

    @abstractmethod
    def targets(self, batch: Batch) -> Tensor:
        """int64 [any shape]: the class of each item, `IGNORED` for what is none."""

    def answer(self, module: nn.Module, batch: Batch, **more: bool) -> Any:
        """What the module says of a batch, with its `logits`; `more` are the library's own arguments."""
        return module(**inputs(batch), **more)

    def items(self, values: Tensor, batch: Batch, kept: Tensor) -> Tensor:
        """[items, ..]: of what an answer has for each place that of the items where `kept` (bool, the shape of
        `targets`) is true."""
        return values[kept]

    def scores(self, module: nn.Module, batch: Batch, kept: Tensor) -> Tensor:
        """[items, classes]: the scores of the items where `kept` is true."""
        return self.items(self.answer(module, batch).logits, batch, kept)

    def prepare(self, batch: Batch, training: bool) -> Batch:
        return batch

    def weight(self, batch: Batch) -> float:
        targets = self.targets(batch)
        kept = targets[targets != IGNORED]
        if self.class_weights is None:
            return float(kept.numel())
        return float(self.class_weights.to(kept.device)[kept].sum())

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        targets = self.targets(batch)
        kept = targets != IGNORED
        return self.judged(self.scores(module, batch, kept), targets[kept])

    def judged(self, given: Tensor, wanted: Tensor) -> Outcome:
        """What scores [items, classes] are worth where `wanted`, int64 [items], are the right classes."""
        scores, wanted = given.float(), wanted.to(given.device)
        weights = None if self.class_weights is None else self.class_weights.to(scores.device)
        total = functional.cross_entropy(
            scores, wanted, weight=weights, label_smoothing=self.smoothing, reduction="sum"
        )
        with torch.no_grad():
            right = (scores.argmax(-1) == wanted).sum()
        return Outcome(total, {"right": right, "items": torch.tensor(wanted.numel())}, scores)

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        return {"loss": average(sums), "accuracy": sums["right"] / max(1.0, sums["items"])}
