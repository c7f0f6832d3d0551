"""Elastic weight consolidation: weights that old rows need stay near where they were (Kirkpatrick et al. 2017).

How much a weight matters is the mean, over old rows, of the squared gradient of what a row is worth: the diagonal of
Fisher's information with the labels that the rows have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from .aids import Backward
from .data.batches import Batch
from .objectives.protocol import Objective, Outcome
from .optimizing import trainable


class Anchored:
    """A companion of a run: what each weight was at its beginning and how much it matters, found out in the first pass
    and kept in checkpoints."""

    def __init__(self, module: nn.Module, objective: Objective, rows: Sequence[Batch], weight: float) -> None:
        """
        Args:
            module: what is trained.
            objective: what old rows are judged by.
            rows: old ones, one in each batch; at least one.
            weight: of the term, weight / 2 * sum(importance * (value - start)^2).
        """
        self._moving, self._objective, self._rows, self._weight = trainable(module), objective, rows, weight
        self._starts: dict[str, Tensor] = {}
        self._matters: dict[str, Tensor] = {}

    def around(self, backward: Backward, weigh: Callable[[Batch], float]) -> Backward:
        """The same backward pass with the gradient of the term, which a step has once, however many micro-batches it
        is made of; `weigh` is the objective's weight of one. Outcomes are without the term."""

        def passed(module: nn.Module, batch: Batch, weight: float) -> Outcome:
            if not self._matters:
                self._look(module)
            outcome = backward(module, batch, weight)
            self._hold(weigh(batch) / weight)
            return outcome

        return passed

    def stepped(self, step: int) -> None:
        """Nothing changes: the term holds what was learned before the run."""

    def states(self) -> dict[str, Tensor]:
        """Where weights were, and how much they matter."""
        starts = {f"starts/{name}": value for name, value in self._starts.items()}
        return starts | {f"matters/{name}": value for name, value in self._matters.items()}

    def restore(self, states: Mapping[str, Tensor]) -> None:
        """Go on from what `states` gave."""
        for key, value in states.items():
            kind, _, name = key.partition("/")
            (self._starts if kind == "starts" else self._matters)[name] = value.clone()

    def _look(self, module: nn.Module) -> None:
        names, values = list(self._moving), list(self._moving.values())
        found = {name: torch.zeros_like(value) for name, value in self._moving.items()}
        for row in self._rows:
            ready = self._objective.prepare(row, training=False).to(values[0].device)
            total = self._objective.loss(module, ready).total
            slopes = torch.autograd.grad(total, values, allow_unused=True)
            for name, slope in zip(names, slopes, strict=True):
                if slope is not None:
                    found[name].addcmul_(slope, slope, value=1 / len(self._rows))
        self._starts = {name: value.detach().clone() for name, value in self._moving.items()}
        self._matters = found

    @torch.no_grad()
    def _hold(self, share: float) -> None:
        for name, value in self._moving.items():
            if value.grad is not None:
                away = value - self._starts[name]
                value.grad.addcmul_(self._matters[name], away, value=share * self._weight)
