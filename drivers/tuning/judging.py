"""What a module says of held-out batches, gathered for the figures of its objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .data.batches import Batch
from .data.example import IGNORED
from .metrics import by_objective, retrieval
from .metrics.by_objective import Gathered
from .objectives.protocol import Objective, Outcome

Items = tuple[Tensor, Tensor, Tensor]
"""What is said, what is wanted, and what row of the batch it is of."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation in full, from which all figures and what chance does to them can be had.

    `gathered` is empty for objectives that say tokens; `sums`, float64 [batches] by name, are what adds up over
    batches, with `loss` and `weight`.
    """

    gathered: Gathered
    sums: Mapping[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """To be kept in a checkpoint; `of` makes the same again."""
        sums = {f"sums.{name}": value for name, value in self.sums.items()}
        if not len(self.gathered.said):
            return sums
        return {**sums, "said": self.gathered.said, "wanted": self.gathered.wanted, "rows": self.gathered.rows}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], names: Sequence[str]) -> Evaluated:
        """From `tensors`, and the names of classes."""
        sums = {name.removeprefix("sums."): value for name, value in tensors.items() if name.startswith("sums.")}
        nothing = torch.empty(0)
        said, wanted = tensors.get("said", nothing), tensors.get("wanted", nothing)
        return cls(Gathered(said, wanted, rows=tensors.get("rows", nothing.long()), names=names_for(said, names)), sums)


def names_for(said: Tensor, names: Sequence[str]) -> Sequence[str]:
    """A name for each output of the head: a number where no label is for it. None where no label has a name."""
    if names and said.ndim == 2:
        return (*names, *(str(number) for number in range(len(names), said.shape[1])))
    return names


class Judging:
    """Takes batch after batch. Objectives that say tokens have their figures from sums alone: nothing is gathered."""

    def __init__(self, objective: str, labels: Sequence[str] = ()) -> None:
        """
        Args:
            objective: of the recipe.
            labels: names of classes; entities need them.
        """
        self._objective, self._labels = objective, labels
        self._parts: list[Items] = []
        self._rows = 0

    def add(self, outcome: Outcome, batch: Batch) -> None:
        """Take note of a batch and what came of it."""
        take = _TAKEN.get(self._objective)
        given = outcome.scores if outcome.said is None else outcome.said
        if take is not None and given is not None:
            said, wanted, rows = take(given.detach(), batch)
            self._parts.append((said.cpu(), wanted.cpu(), rows.cpu() + self._rows))
        self._rows += len(batch.input_ids)

    def gathered(self) -> Gathered:
        """All that was taken."""
        if not self._parts:
            return Gathered(torch.empty(0), torch.empty(0))
        said, wanted, rows = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        return Gathered(said, wanted, rows=rows, names=names_for(said, self._labels))

    def figures(self) -> dict[str, float]:
        """Those of the objective; none where nothing was gathered."""
        return by_objective.figures(figured(self._objective, self._labels), self.gathered()) if self._parts else {}


class Tally:
    """What an evaluation of held-out batches comes to, batch by batch."""

    def __init__(self, objective: Objective, judging: Judging) -> None:
        self._objective, self._judging = objective, judging
        self._sums: dict[str, list[float]] = {"loss": [], "weight": []}

    def add(self, outcome: Outcome, batch: Batch) -> None:
        """Take note of a batch, as it was given to the objective, and of what came of it."""
        weight = self._objective.weight(batch)
        sums: Mapping[str, Tensor | float] = {"loss": outcome.total, "weight": weight, **outcome.sums}
        for name, value in sums.items():
            self._sums.setdefault(name, []).append(float(value))
        self._judging.add(outcome, batch)

    def figures(self) -> dict[str, float]:
        """Nothing where nothing was to be said."""
        sums = {name: sum(values) for name, values in self._sums.items()}
        if not sums["weight"]:
            return {}
        return {**self._objective.summary(sums), **self._judging.figures()}

    def evaluated(self) -> Evaluated:
        """The whole of it."""
        sums = {name: torch.tensor(values, dtype=torch.float64) for name, values in self._sums.items()}
        return Evaluated(self._judging.gathered(), sums)


def figured(objective: str, names: Sequence[str]) -> str:
    """As what it has figures: without names, tags make no entities."""
    return "classification" if objective == "token-classification" and not names else objective


def _classes(scores: Tensor, batch: Batch) -> Items:
    """Of rows or of tokens, as labels are."""
    kept = batch.labels != IGNORED
    return scores, batch.labels[kept], kept.nonzero()[:, 0]


def _values(said: Tensor, batch: Batch) -> Items:
    return said, batch.labels, _each(said)


def _numbers(said: Tensor, batch: Batch) -> Items:
    rows = _each(said).repeat_interleave(said[:1].numel())
    return said.flatten(), batch.labels.flatten(), rows


def _places(scores: Tensor, batch: Batch) -> Items:
    """The text of a row has the same number."""
    rows = _each(scores)
    return retrieval.places(scores, rows), rows, rows


def _margins(said: Tensor, batch: Batch) -> Items:
    return said, said, _each(said)


def _leads(scores: Tensor, batch: Batch) -> Items:
    """By how much the right one, which stands first, is ahead of the best of the others."""
    return _margins(scores[:, 0] - scores[:, 1:].amax(1), batch)


def _each(said: Tensor) -> Tensor:
    return torch.arange(len(said), device=said.device)


_TAKEN: Mapping[str, Callable[[Tensor, Batch], Items]] = {
    "classification": _classes, "token-classification": _classes, "multi-label": _values, "regression": _numbers,
    "question-answering": _values, "embedding": _places, "preference": _margins, "multiple-choice": _leads,
}  # fmt: skip
