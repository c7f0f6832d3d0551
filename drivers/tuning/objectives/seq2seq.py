"""A text into another, by models with an encoder and a decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

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

    def answer(self, module: nn.Module, batch: Batch, **more: bool) -> Any:
        begun = module.prepare_decoder_input_ids_from_labels(batch.others[0].labels)  # type: ignore[operator]
        return module(**inputs(batch), decoder_input_ids=begun, use_cache=False, **more)
