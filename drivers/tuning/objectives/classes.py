"""A class of each token, of each row, or of the tokens that are hidden."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..data.batches import Batch
from ..data.example import IGNORED
from .protocol import Scored


@dataclass(frozen=True)
class Rows(Scored):
    """`labels`, int64 [rows]: the class of each row."""

    head: ClassVar[str] = "sequence-classification"

    def targets(self, batch: Batch) -> Tensor:
        return batch.labels


@dataclass(frozen=True)
class Tokens(Rows):
    """`labels`, int64 [rows, tokens]: the class of each token."""

    head: ClassVar[str] = "token-classification"


@dataclass(frozen=True)
class Masked(Rows):
    """Tokens that are hidden are to be said (BERT, Devlin et al. 2019).

    `share` of the tokens that have a label are chosen: of these 80 % become `mask`, 10 % a token below `vocabulary`
    and 10 % stay. For evaluation the choice is always the same.
    """

    head: ClassVar[str] = "masked-lm"
    mask: int = 0
    vocabulary: int = 0
    share: float = 0.15

    def prepare(self, batch: Batch, training: bool) -> Batch:
        generator = torch.Generator()
        if training:  # from the run's own numbers, which a checkpoint keeps
            generator.manual_seed(int(torch.randint(2**62, ())))
        ids, labels = batch.input_ids.clone(), batch.labels.clone()
        drawn = torch.rand(ids.shape, generator=generator).masked_fill(labels == IGNORED, 1.0)
        chosen = drawn < self.share
        if not chosen.any():  # something is to be learnt of every batch
            chosen = (drawn == drawn.min()) & (drawn < 1.0)
        labels[~chosen] = IGNORED
        kind = torch.rand(ids.shape, generator=generator)
        other = torch.randint(self.vocabulary, ids.shape, generator=generator)
        ids = torch.where(chosen & (kind < 0.8), self.mask, ids)
        ids = torch.where(chosen & (kind >= 0.9), other, ids)
        return dataclasses.replace(batch, input_ids=ids, labels=labels)
