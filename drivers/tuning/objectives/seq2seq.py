"""A text into another, by models with an encoder and a decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..data.batches import Batch
from .protocol import Scored, inputs


@dataclass(frozen=True)
class Seq2seq(Scored):
    """Rows hold what is read, `others[0]` what is to be written: its `labels`, int64 [rows, tokens], not shifted.

    The decoder reads the labels shifted by one, as the library's models do it.
    """

    head: ClassVar[str] = "seq2seq-lm"

    def targets(self, batch: Batch) -> Tensor:
        return batch.others[0].labels

    def scores(self, module: nn.Module, batch: Batch, kept: Tensor) -> Tensor:
        labels = batch.others[0].labels
        begun = module.prepare_decoder_input_ids_from_labels(labels)  # type: ignore[operator]
        scores: Tensor = module(**inputs(batch), decoder_input_ids=begun, use_cache=False).logits[kept]
        return scores
