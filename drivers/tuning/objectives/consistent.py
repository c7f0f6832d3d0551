"""Learning from rows without labels: what a model is sure of it also says when the row is changed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.batches import Batch
from ..data.example import IGNORED
from ..options.unlabelled import Unlabelled
from .protocol import Around, Outcome, Scored


@dataclass(frozen=True)
class Consistent(Around):
    """An objective of classes, with a second loss of rows without labels (FixMatch, arXiv:2001.07685).

    `batch.others` are such rows as they are and the same changed, with as many items. Items whose likeliest class is
    likely enough count; the changed row is to have that class (pseudo-labels), or all its probabilities (`soft`:
    consistency, UDA, arXiv:1904.12848). The mean over all items, sure or not, counts `asked.weight` times as much as
    the mean of items with labels.
    """

    of: Scored
    asked: Unlabelled

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        plain = self.of.loss(module, replace(batch, others=()))
        if not batch.others:
            return plain
        given, changed = batch.others
        with torch.no_grad():
            likely = (self._scores(module, given) / self.asked.sharpen).softmax(-1)
        sure = likely.amax(-1) >= self.asked.confidence
        said = self._scores(module, changed).log_softmax(-1)
        if self.asked.soft:
            apart = functional.kl_div(said, likely, reduction="none").sum(-1)
        else:
            apart = functional.nll_loss(said, likely.argmax(-1), reduction="none")
        mean = (apart * sure).sum() / max(1, len(sure))
        return replace(plain, total=plain.total + self.asked.weight * self.of.weight(batch) * mean)

    def _scores(self, module: nn.Module, batch: Batch) -> Tensor:
        """float32 [items, classes]."""
        return self.of.scores(module, batch, self.of.targets(batch) != IGNORED).float()
