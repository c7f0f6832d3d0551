"""What a module says of held-out batches, gathered for the figures of its objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .data.batches import Batch
from .data.example import IGNORED
from .metrics import by_objective, retrieval
from .metrics.by_objective import Gathered
from .objectives.protocol import Outcome

Items = tuple[Tensor, Tensor, Tensor]
"""What is said, what is wanted, and what row of the batch it is of."""


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
        names = self._labels
        if names and said.ndim == 2:  # outputs of the head that no label is for
            names = (*names, *(str(number) for number in range(len(names), said.shape[1])))
        return Gathered(said, wanted, rows=rows, names=names)

    def figures(self) -> dict[str, float]:
        """Those of the objective; none where nothing was gathered."""
        if not self._parts:
            return {}
        tags = self._objective == "token-classification" and not self._labels
        return by_objective.figures("classification" if tags else self._objective, self.gathered())


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
