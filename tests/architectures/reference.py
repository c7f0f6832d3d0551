"""What the library itself answers: greedy tokens and logits of `generate`, in float32, with its own cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Answer:
    """Greedy tokens and the logits [tokens, vocabulary] that each was chosen from."""

    tokens: Sequence[int]
    logits: Tensor

    @property
    def distinct(self) -> int:
        return len(set(self.tokens))

    @property
    def margin(self) -> float:
        """The smallest distance between the two best logits, as a share of the largest."""
        best = self.logits.topk(2).values
        return float((best[:, 0] - best[:, 1]).min() / self.logits.abs().max())


@torch.inference_mode()
def greedy(module: Any, prompt: Sequence[int], count: int, **options: Any) -> Answer:
    """`count` tokens of `generate`; `options` go to it."""
    ids = torch.tensor([list(prompt)])
    given = {"attention_mask": torch.ones_like(ids), **options}
    made = module.generate(
        ids, max_new_tokens=count, do_sample=False, use_cache=True, output_logits=True, return_dict_in_generate=True,
        **given,
    )  # fmt: skip
    return Answer(made.sequences[0, len(prompt) :].tolist(), torch.cat(made.logits).float())
