"""The next token, over the tokens that have a label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..data.batches import Batch
from .protocol import Scored, inputs


@dataclass(frozen=True)
class Causal(Scored):
    """`labels`, int64 [rows, tokens], stand where their tokens do: what is at a position is to be said one before.

    Rows may hold several examples; the first token of each has no label.
    """

    head: ClassVar[str] = "causal-lm"

    def targets(self, batch: Batch) -> Tensor:
        return batch.labels[:, 1:]

    def scores(self, module: nn.Module, batch: Batch, kept: Tensor) -> Tensor:
        # Without a cache: with one, the library would not look for examples in positions.
        logits: Tensor = module(**inputs(batch), use_cache=False).logits
        # Prompts that are learnt stand before the tokens and have scores too.
        scores: Tensor = logits[:, -batch.labels.shape[1] : -1][kept]
        return scores

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        figures = super().summary(sums)
        return figures | {"perplexity": math.exp(min(figures["loss"], 700.0))}
