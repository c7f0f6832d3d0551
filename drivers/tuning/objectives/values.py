"""Numbers of each row, and classes that apply or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from ..data.batches import Batch
from .protocol import Outcome, average, inputs


class _Values:
    """Each number of a row's labels counts alike."""

    head: ClassVar[str] = "sequence-classification"

    def prepare(self, batch: Batch, training: bool) -> Batch:
        return batch

    def weight(self, batch: Batch) -> float:
        return float(batch.labels.numel())


@dataclass(frozen=True)
class Regression(_Values):
    """`labels`, float32 [rows] or [rows, numbers]; the loss is the squared error of each number."""

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        wanted = batch.labels.float()
        given = module(**inputs(batch)).logits.float().view_as(wanted)
        total = functional.mse_loss(given, wanted, reduction="sum")
        with torch.no_grad():
            far = (given - wanted).abs().sum()
        return Outcome(total, {"far": far}, said=given.detach())

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        return {"loss": average(sums), "mean_absolute_error": sums["far"] / max(1.0, sums["weight"])}


@dataclass(frozen=True)
class MultiLabel(_Values):
    """`labels`, float32 [rows, classes]: 1 for each class that applies; the loss is the mean over rows and classes."""

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        wanted = batch.labels.float()
        scores = module(**inputs(batch)).logits.float()
        total = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="sum")
        with torch.no_grad():
            right = ((scores > 0) == (wanted > 0.5)).sum()
        return Outcome(total, {"right": right}, said=scores.detach())

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        return {"loss": average(sums), "accuracy": sums["right"] / max(1.0, sums["weight"])}
