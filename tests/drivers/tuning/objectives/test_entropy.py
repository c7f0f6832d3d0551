"""Losses and gradients that are written out are those of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from llmos.drivers.tuning.objectives.entropy import Entropy

WEIGHTS = torch.tensor([0.5, 0.0, 2.0, 1.0, 3.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_as_torch_has_them(smoothing: float, weights: Any) -> None:
    torch.manual_seed(0)
    scores = (torch.randn(40, 5) * 4).requires_grad_()
    wanted = torch.randint(0, 5, (40,))
    theirs = functional.cross_entropy(scores, wanted, weight=weights, label_smoothing=smoothing, reduction="none")
    (slopes,) = torch.autograd.grad(theirs.sum(), scores)
    entropy = Entropy(smoothing, weights)
    mine, logs = entropy.losses(scores.detach(), wanted)
    torch.testing.assert_close(mine, theirs.detach())
    torch.testing.assert_close(entropy.slopes(logs, wanted), slopes)
