"""The next token, as a teacher would say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.batches import Batch
from ..data.example import IGNORED
from .causal import Causal, answered, of_labels
from .protocol import Outcome


@dataclass(frozen=True)
class Distillation(Causal):
    """The divergence from a teacher of the same vocabulary, and the loss of the labels (Hinton et al. 2015).

    `share` of the loss is the teacher's: `temperature` squared times KL(teacher || module) of the scores divided by
    `temperature`. The teacher is a module of its own, without gradients.
    """

    head: ClassVar[str] = "causal-lm"
    teacher: nn.Module = field(default_factory=nn.Identity)
    temperature: float = 2.0
    share: float = 0.5

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        plain = super().loss(module, batch)
        assert plain.scores is not None
        with torch.no_grad():
            wanted = self.scores(self.teacher, batch, self.targets(batch) != IGNORED).float()
        apart = functional.kl_div(self._soft(plain.scores), self._soft(wanted), reduction="sum", log_target=True)
        total = (1 - self.share) * plain.total + self.share * self.temperature**2 * apart
        return Outcome(total, plain.sums, plain.scores)

    def _soft(self, scores: Tensor) -> Tensor:
        return (scores / self.temperature).log_softmax(-1)


@dataclass(frozen=True)
class HiddenStates(Causal):
    """The loss of the labels, and how far the states inside are from a teacher's (FitNets, Romero et al. 2015).

    Attributes:
        layers: pairs of a layer of the module and one of the teacher, as `output_hidden_states` counts them: 0 are the
            embeddings. Both are as wide.
        share: of the loss, the mean over pairs and numbers of the squared distance, at each token that has a label.
    """

    head: ClassVar[str] = "causal-lm"
    teacher: nn.Module = field(default_factory=nn.Identity)
    layers: Sequence[tuple[int, int]] = ((-1, -1),)
    share: float = 0.5

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        targets = self.targets(batch)
        kept = targets != IGNORED
        ours = answered(module, batch, output_hidden_states=True)
        with torch.no_grad():
            theirs = answered(self.teacher, batch, output_hidden_states=True).hidden_states
        plain = self.judged(of_labels(ours.logits, batch)[kept], targets[kept])
        apart = torch.zeros((), device=kept.device)
        for mine, other in self.layers:
            state, goal = (of_labels(each, batch)[kept].float() for each in (ours.hidden_states[mine], theirs[other]))
            apart = apart + (state - goal).square().mean(-1).sum() / len(self.layers)
        return Outcome((1 - self.share) * plain.total + self.share * apart, plain.sums, plain.scores)
