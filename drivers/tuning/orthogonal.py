"""What AdaLoRA adds to a loss: its triplets stand for singular vectors as far as these are orthogonal to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .data.batches import Batch
from .objectives.protocol import Loss, Outcome


def kept_apart(loss: Loss, weight: Callable[[Batch], float]) -> Loss:
    """A loss with the term of `apart`, as often as the micro-batch weighs, so that a step has it once, however many
    micro-batches it has; held-out rows are judged without it."""

    def passed(module: nn.Module, batch: Batch) -> Outcome:
        outcome = loss(module, batch)
        if not module.training:
            return outcome
        return replace(outcome, total=outcome.total + weight(batch) * apart(module))

    return passed


def apart(adapted: Any) -> Tensor:
    """float32 scalar: the mean over the matrices A [r, K] and B [N, r] of |A At - 1| and |Bt B - 1|, times the weight
    that the adapter's settings say (Zhang et al. 2023, arXiv:2303.10512, 3.1; PEFT takes the mean and Frobenius's norm,
    not its square)."""
    found: list[Tensor] = []
    for name, value in adapted.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            product = value @ value.T if ".lora_A." in name else value.T @ value
            found.append(torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device)))
    weight: float = adapted.peft_config["default"].orth_reg_weight
    return weight * torch.stack(found).mean()
