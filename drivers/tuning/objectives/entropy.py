"""Cross-entropy of items with its gradient written out: as few passes over the scores as there can be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Entropy:
    """As `torch.nn.functional.cross_entropy` with `reduction="none"`.

    Attributes:
        smoothing: label smoothing, 0 to below 1.
        class_weights: float32 [classes]; None for all alike.
    """

    smoothing: float = 0.0
    class_weights: Tensor | None = None

    def losses(self, scores: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Losses [items], and logarithms of probabilities [items, classes] for `slopes`.

        Args:
            scores: float32 [items, classes].
            wanted: int64 [items], the right classes.
        """
        logs = functional.log_softmax(scores, dim=-1)
        right = -logs.gather(1, wanted[:, None])[:, 0]
        if not self.smoothing and self.class_weights is None:
            return right, logs
        weights = self._weights(logs)
        all_alike = -(logs @ weights) / len(weights)
        return (1.0 - self.smoothing) * weights[wanted] * right + self.smoothing * all_alike, logs

    def slopes(self, logs: Tensor, wanted: Tensor) -> Tensor:
        """The gradient of the sum of the losses, [items, classes], in the place of what `losses` gave."""
        slopes, items = logs.exp_(), torch.arange(len(wanted), device=logs.device)
        if not self.smoothing and self.class_weights is None:
            slopes[items, wanted] -= 1.0
            return slopes
        weights = self._weights(logs)
        one, share = (1.0 - self.smoothing) * weights[wanted], self.smoothing / len(weights)
        slopes *= (one + share * weights.sum())[:, None]
        slopes -= share * weights
        slopes[items, wanted] -= one
        return slopes

    def _weights(self, like: Tensor) -> Tensor:
        if self.class_weights is None:
            return torch.ones(like.shape[1], device=like.device)
        return self.class_weights.to(like.device)
