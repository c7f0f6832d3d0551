"""What peers that run `generate` on a padded batch share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers


def padded(prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [B, T], padded on the left, and the mask of what is no padding."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


class Watch(transformers.StoppingCriteria):  # type: ignore[misc]
    """Tells each step's tokens, and stops nothing."""

    def __init__(self, emit: Callable[[Sequence[int]], None]) -> None:
        self._emit = emit

    def __call__(self, input_ids: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
        self._emit(input_ids[:, -1].tolist())
        return torch.zeros(len(input_ids), dtype=torch.bool)
