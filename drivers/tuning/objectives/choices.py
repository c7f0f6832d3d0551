"""Of several answers the right one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..data.batches import Batch
from .preference import likelihood
from .protocol import Scored


@dataclass(frozen=True)
class Choices(Scored):
    """Rows hold the right answers after their prompts, `others` the wrong ones, as many for each row.

    The score of an answer is its log-probability after the prompt, as evaluations of multiple choice have it (Brown et
    al. 2020, 2.4), and the loss is the cross-entropy over the answers of a row. `room` as `Preference` has it.
    """

    head: ClassVar[str] = "causal-lm"
    room: int = 0

    def targets(self, batch: Batch) -> Tensor:
        return torch.zeros(len(batch.input_ids), dtype=torch.long, device=batch.input_ids.device)

    def scores(self, module: nn.Module, batch: Batch, kept: Tensor) -> Tensor:
        return torch.stack([likelihood(module, each, self.room) for each in (batch, *batch.others)], dim=1)
