"""Held-out rows of their own, such as those of an earlier task, looked at before the first step and after the last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import report
from .data.batches import Batch
from .judging import Evaluated, Judging, Tally
from .objectives.protocol import Objective
from .training import Looked


@dataclass(frozen=True)
class HeldOut:
    """A `Look` at rows that are judged by themselves.

    Attributes:
        name: what its figures begin with.
        batches: the rows, the same each time.
        objective: what they are judged with.
        kind: its name, as a recipe has it.
        device: where the module is.
        labels: names of classes.
    """

    name: str
    batches: Iterable[Batch]
    objective: Objective
    kind: str
    device: torch.device
    labels: Sequence[str] = ()

    def look(self, module: nn.Module, yield_: Callable[[], None]) -> Looked:
        """Figures as `NAME_FIGURE`, and the tensors of `Evaluated`."""
        tally = Tally(self.objective, Judging(self.kind, self.labels))
        for batch in self.batches:
            ready = self.objective.prepare(batch, training=False).to(self.device)
            tally.add(self.objective.loss(module, ready), ready)
            yield_()
        figures = {f"{self.name}_{name}": value for name, value in tally.figures().items()}
        return Looked(figures, tally.evaluated().tensors())

    def compared(
        self, before: Mapping[str, Tensor], after: Mapping[str, Tensor], between: Callable[[], None]
    ) -> dict[str, Any]:
        """The figures of both, with what chance does to them."""
        one, other = (Evaluated.of(each, self.labels) for each in (before, after))
        found = report.figures(self.kind, self.objective.summary, one, other, between)
        return {"figures": {f"{self.name}_{name}": value for name, value in found.items()}}
