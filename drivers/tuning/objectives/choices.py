"""Of several texts the right one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.batches import Batch
from .protocol import Scored, inputs


@dataclass(frozen=True)
class Choices(Scored):
    """`labels`, int64 [rows]: which text is right, 0 for the row's own, from 1 on those of `others`."""

    head: ClassVar[str] = "multiple-choice"

    def targets(self, batch: Batch) -> Tensor:
        return batch.labels

    def scores(self, module: nn.Module, batch: Batch, kept: Tensor) -> Tensor:
        """The module gets [rows, texts, tokens], where what a text is shorter than the longest is masked."""
        texts = [inputs(each) for each in (batch, *batch.others)]
        longest = max(text["input_ids"].shape[1] for text in texts)
        given = {
            name: torch.stack([functional.pad(text[name], (0, longest - text[name].shape[1])) for text in texts], 1)
            for name in texts[0]
        }
        scores: Tensor = module(**given).logits[kept]
        return scores
