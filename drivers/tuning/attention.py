"""Attention of rows that hold several examples: each example by itself, in place of a mask over the whole row.

Under a mask every token is multiplied with every other of its row, and most of that is thrown away: of a row of 512
tokens with six examples about five sixths. Rows that are no such thing are the library's own affair.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "llmos_examples"
"""What the library calls it by."""


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float = 0.0,
    scaling: float | None = None, **more: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """As transformers' `sdpa_attention_forward`, and the same answers to the rounding of sums.

    Args:
        module: of the model; tells of groups of keys.
        query: [R, H, T, D]; key and value: [R, G, T, D].
        attention_mask: [R, 1, T, T] bool, true where attention is allowed; None for causal rows of one example.

    Returns:
        [R, T, H, D], and None in the place of the weights.
    """
    plain = dropout or more.get("position_bias") is not None
    lengths = None if plain or attention_mask is None else _lengths(attention_mask)
    if lengths is None:
        answer: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return answer
    rows, answers = len(lengths), []
    for sizes, *whole in zip(lengths, query.chunk(rows), key.chunk(rows), value.chunk(rows), strict=True):
        examples = zip(*(part.split_with_sizes(sizes, dim=2) for part in whole), strict=True)
        parts = [
            sdpa_attention_forward(module, q, k, v, None, scaling=scaling, is_causal=True)[0] for q, k, v in examples
        ]
        answers.append(torch.cat(parts, dim=1))
    return torch.cat(answers), None


def _lengths(mask: Tensor) -> list[list[int]] | None:
    """Tokens of each example of each row, if the mask lets each token see what its example has said up to it, and
    nothing else; and if any row has more than one."""
    if isinstance(mask, FakeTensor) or mask.dtype != torch.bool or mask.shape[-1] != mask.shape[-2]:
        return None
    seen = mask[:, 0]
    places = torch.arange(seen.shape[-1], device=seen.device)
    first = seen.int().argmax(-1)  # the first token that each may see
    expected = (places >= first[..., None]) & (places <= places[:, None])
    begins = first == places
    if not torch.equal(seen, expected) or not torch.equal(first, torch.where(begins, places, 0).cummax(-1).values):
        return None
    if len(first) == int(begins.sum()):
        return None
    starts = [[*row.nonzero()[:, 0].tolist(), len(places)] for row in begins]
    return [[end - start for start, end in pairwise(row)] for row in starts]


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
