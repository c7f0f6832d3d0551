"""Vectors of texts that belong together are near, of others far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.batches import Batch
from .protocol import Outcome, Scored, average, inputs


@dataclass(frozen=True)
class Embedding(Scored):
    """Each row's text is to be told from the texts of all rows that are near it (in-batch negatives, InfoNCE).

    `others[0]` are the texts that belong to the rows, `others[1]`, where there, texts that do not. Vectors are the mean
    of the last hidden states over a row's tokens, of length 1; scores are cosines divided by `temperature`
    (van den Oord et al. 2018; Henderson et al. 2017).
    """

    head: ClassVar[str] = "features"
    temperature: float = 0.05

    def targets(self, batch: Batch) -> Tensor:
        return torch.arange(len(batch.input_ids), device=batch.input_ids.device)

    def scores(self, module: nn.Module, batch: Batch, kept: Tensor) -> Tensor:
        texts = torch.cat([vectors(module, other) for other in batch.others])
        return vectors(module, batch) @ texts.T / self.temperature


@dataclass(frozen=True)
class Triplet:
    """A row's text is to be nearer to `others[0]` than to `others[1]`, by `margin` at least (Schroff et al. 2015).

    Distances are Euclidean ones of vectors as `Embedding` has them.
    """

    head: ClassVar[str] = "features"
    margin: float = 0.5

    def prepare(self, batch: Batch, training: bool) -> Batch:
        return batch

    def weight(self, batch: Batch) -> float:
        return float(len(batch.input_ids))

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        text, near, far = (vectors(module, each) for each in (batch, *batch.others[:2]))
        total = functional.triplet_margin_loss(text, near, far, margin=self.margin, reduction="sum")
        with torch.no_grad():
            right = ((text * near).sum(-1) > (text * far).sum(-1)).sum()
        return Outcome(total, {"right": right})

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        return {"loss": average(sums), "accuracy": sums["right"] / max(1.0, sums["weight"])}


def vectors(module: nn.Module, batch: Batch) -> Tensor:
    """float32 [rows, size], each of length 1."""
    states = module(**inputs(batch)).last_hidden_state.float()
    mask = batch.attention_mask[..., None].to(states.dtype)
    return functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
