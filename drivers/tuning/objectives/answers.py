"""Where in a text the answer stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.batches import Batch
from .protocol import Outcome, average, inputs


@dataclass(frozen=True)
class Answers:
    """`labels`, int64 [rows, 2]: first and last token of the answer; the loss is the mean of both ends'."""

    head: ClassVar[str] = "question-answering"

    def prepare(self, batch: Batch, training: bool) -> Batch:
        return batch

    def weight(self, batch: Batch) -> float:
        return float(len(batch.labels))

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        given = module(**inputs(batch))
        hidden = batch.attention_mask == 0
        ends: list[Tensor] = [
            scores.float().masked_fill(hidden, float("-inf")) for scores in (given.start_logits, given.end_logits)
        ]
        total = sum(
            (functional.cross_entropy(s, batch.labels[:, n], reduction="sum") for n, s in enumerate(ends)),
            torch.zeros((), device=hidden.device),
        )
        with torch.no_grad():
            said = torch.stack([scores.argmax(-1) for scores in ends], dim=1)
            exact = (said == batch.labels).all(dim=1).sum()
        return Outcome(total / 2, {"exact": exact}, said=said)

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        return {"loss": average(sums), "exact_match": sums["exact"] / max(1.0, sums["weight"])}
