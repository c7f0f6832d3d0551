"""The next token, over the tokens that have a label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

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

    def answer(self, module: nn.Module, batch: Batch, **more: bool) -> Any:
        return answered(module, batch, **more)

    def items(self, values: Tensor, batch: Batch, kept: Tensor) -> Tensor:
        return of_labels(values, batch)[kept]

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        figures = super().summary(sums)
        return figures | {"perplexity": math.exp(min(figures["loss"], 700.0))}


def answered(module: nn.Module, batch: Batch, **more: bool) -> Any:
    """What the module says of a batch; without a cache: with one, the library looks for no examples in positions."""
    return module(**inputs(batch), use_cache=False, **more)


def of_labels(values: Tensor, batch: Batch) -> Tensor:
    """Of [rows, all tokens, ..] what is at the token before each label: [rows, tokens - 1, ..].

    Prompts that are learnt stand before the tokens of the batch and have values too.
    """
    return values[:, -batch.labels.shape[1] : -1]
