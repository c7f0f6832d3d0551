"""Log probabilities: natural log-softmax of the model's own logits in float32, before any setting changes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...contract import TokenLogprob
from ..detokenizer import Vocabulary
from .distribution import best

TILE = 1 << 20
"""Scores looked at together: few enough to stay in a cache; there is never a float32 copy of a step's logits."""


class Scored:
    """The log-softmax of rows of float32 scores `[N, W]`, as far as it is asked for; the scores may change later.

    `counts` are how many of the best tokens are wanted of each row: of equal ones those of the lowest ids.
    """

    def __init__(self, scores: Tensor, counts: Sequence[int]) -> None:
        self._normal: list[float] = scores.logsumexp(dim=-1).tolist()
        self._ranked = [_ranked(row, count) for row, count in zip(scores, counts, strict=True)]

    def of(self, row: int, logit: float) -> float:
        """The log probability of a token of this logit."""
        return logit - self._normal[row]

    def top(self, row: int) -> list[tuple[int, float]]:
        """The best tokens with their log probabilities; best first, equal ones in order of their ids."""
        return [(token, self.of(row, score)) for token, score in self._ranked[row]]


def _ranked(scores: Tensor, count: int) -> list[tuple[int, float]]:
    """The `count` best tokens of one row and their scores, without those that are excluded."""
    if count == 0:
        return []
    values, tokens = best(scores, min(count + 1, scores.shape[-1]))
    if len(values) > count and values[count] == values[count - 1]:
        tokens = (scores >= values[count]).nonzero().squeeze(-1)
        values = scores[tokens]
    pairs = zip(tokens.tolist(), values.tolist(), strict=True)
    ranked = sorted((pair for pair in pairs if pair[1] > -math.inf), key=lambda pair: (-pair[1], pair[0]))
    return ranked[:count]


def prompt_logprobs(logits: Tensor, following: Sequence[int], count: int, vocabulary: Vocabulary) -> list[TokenLogprob]:
    """Log probabilities of given tokens.

    `logits` `[N, V]` are of N positions and `following` their N next tokens: for a whole prompt the logits of all but
    the last token and the prompt without its first, which has no log probability. A part of a prompt gives that part.
    """
    found: list[TokenLogprob] = []
    rows = max(1, TILE // logits.shape[-1])
    for start in range(0, len(following), rows):
        part = logits[start : start + rows].float()
        tokens = following[start : start + rows]
        scored = Scored(part, [count] * len(tokens))
        own = part.gather(-1, torch.tensor(tokens, device=part.device).unsqueeze(-1)).squeeze(-1).tolist()
        for row, (token, logit) in enumerate(zip(tokens, own, strict=True)):
            found.append(to_logprob(token, scored.of(row, logit), scored.top(row), vocabulary))
    return found


def to_logprob(token: int, logprob: float, top: Sequence[tuple[int, float]], vocabulary: Vocabulary) -> TokenLogprob:
    """With texts for people to read."""
    text = vocabulary.text_of
    return TokenLogprob(token, text(token), logprob, tuple((id, text(id), value) for id, value in top))
