"""What a teacher says: an objective of classes or tokens that is learned of another model as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.batches import Batch
from ..data.example import IGNORED
from .protocol import Around, Outcome, Scored


@dataclass(frozen=True)
class Distillation(Around):
    """The divergence from a teacher of the same classes, and the loss of the labels (Hinton et al. 2015).

    `share` of the loss is the teacher's: `temperature` squared times KL(teacher || module) of the scores divided by
    `temperature`, of items that have a label. The states of `layers`, pairs of one of the module and one of the
    teacher, are to be alike as well (FitNets, Romero et al. 2015): `hidden` times the squared distance is added, the
    mean over pairs and numbers, at each token that has a label, or of the mean over the tokens of a row that has one.

    Attributes:
        of: the objective of the labels.
        teacher: a module of its own, without gradients.
        temperature: above 0.
        share: 0 to 1.
        layers: as `output_hidden_states` counts them: 0 are the embeddings. Both are as wide.
        hidden: weight of their distance.
    """

    of: Scored
    teacher: nn.Module = field(default_factory=nn.Identity)
    temperature: float = 2.0
    share: float = 0.5
    layers: Sequence[tuple[int, int]] = ()
    hidden: float = 1.0

    @property
    def beside(self) -> tuple[nn.Module, ...]:
        """Modules that a pass goes through as well."""
        return (self.teacher,)

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        targets, more = self.of.targets(batch), {"output_hidden_states": True} if self.layers else {}
        kept = targets != IGNORED
        ours = self.of.answer(module, batch, **more)
        with torch.no_grad():
            theirs = self.of.answer(self.teacher, batch, **more)
        plain = self.of.judged(self.of.items(ours.logits, batch, kept), targets[kept])
        assert plain.scores is not None
        wanted = self.of.items(theirs.logits, batch, kept).float()
        apart = functional.kl_div(self._soft(plain.scores), self._soft(wanted), reduction="sum", log_target=True)
        total = (1 - self.share) * plain.total + self.share * self.temperature**2 * apart
        if self.layers:
            total = total + self.hidden * self._distance(ours, theirs, batch, kept)
        return Outcome(total, plain.sums, plain.scores)

    def _soft(self, scores: Tensor) -> Tensor:
        return (scores / self.temperature).log_softmax(-1)

    def _distance(self, ours: Any, theirs: Any, batch: Batch, kept: Tensor) -> Tensor:
        total = torch.zeros((), device=kept.device)
        for mine, other in self.layers:
            both = ours.hidden_states[mine], theirs.hidden_states[other]
            state, goal = (self._states(each, batch, kept) for each in both)
            total = total + (state - goal).square().mean(-1).sum() / len(self.layers)
        return total

    def _states(self, values: Tensor, batch: Batch, kept: Tensor) -> Tensor:
        """float32 [items, size]."""
        if kept.ndim == 1:  # labels are of rows: the mean over their tokens
            mask = batch.attention_mask[..., None]
            values = (values * mask).sum(1) / mask.sum(1)
        return self.of.items(values, batch, kept).float()
