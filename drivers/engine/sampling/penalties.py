"""Making tokens that occurred less likely, at the cost of the tokens that occurred, not of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...contract import SamplingParams

ROOM = 64


class Penalties:
    """Which tokens occurred in prompt and answer, and how often in the answer.

    The logit of a token of either is divided by `repetition_penalty` when positive and multiplied when negative
    (Keskar et al. 2019); `frequency_penalty` is taken off for each occurrence in the answer, `presence_penalty` once.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int]) -> None:
        self._params = params
        known = dict.fromkeys(prompt) if params.repetition_penalty != 1.0 else {}
        self._slots: dict[int, int] = {token: slot for slot, token in enumerate(known)}
        self._tokens = torch.zeros(len(known) + ROOM, dtype=torch.long)
        self._tokens[: len(known)] = torch.tensor(list(known), dtype=torch.long)
        self._counts = torch.zeros(len(known) + ROOM)

    @staticmethod
    def wanted(params: SamplingParams) -> bool:
        return params.repetition_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0

    def count(self, token: int) -> None:
        """The token occurred in the answer."""
        slot = self._slots.setdefault(token, len(self._slots))
        if slot == self._tokens.shape[0]:
            self._tokens = torch.cat((self._tokens, torch.zeros_like(self._tokens)))
            self._counts = torch.cat((self._counts, torch.zeros_like(self._counts)))
        self._tokens[slot] = token
        self._counts[slot] += 1.0

    def apply(self, scores: Tensor) -> None:
        """Penalise scores `[V]` in place. Tokens beyond V are those of an input wider than the output."""
        tokens, counts = self._tokens[: len(self._slots)], self._counts[: len(self._slots)]
        inside = tokens < scores.shape[-1]
        tokens, counts = tokens[inside].to(scores.device), counts[inside].to(scores.device)
        values = scores[tokens]
        if self._params.repetition_penalty != 1.0:
            penalty = self._params.repetition_penalty
            values = torch.where(values > 0, values / penalty, values * penalty)
        values -= self._params.frequency_penalty * counts + self._params.presence_penalty * (counts > 0)
        scores[tokens] = values
