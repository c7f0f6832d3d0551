"""The state of one answer as far as choosing its tokens goes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llmos.syscalls.errors import LlmosError

from ...contract import SamplingParams, TokenLogprob
from .params import choices
from .penalties import Penalties
from .philox import Stream, uniform

NO_TOKEN = -1


class Constraint(Protocol):
    """What limits the tokens of an answer; see `grammar.Grammar`."""

    @property
    def finished(self) -> bool:
        """Whether the answer is complete: nothing may follow."""

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""

    def mask(self, size: int) -> Tensor:
        """Which of `size` tokens may come next; bool [size], on the CPU."""

    def advance(self, token: int) -> None:
        """The token came."""

    def copy(self) -> Constraint:
        """The same state, to go on from independently."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What was chosen for one row: a token, or why there is none (`token` is -1 then).

    `logprob` is set when the request asked for it. `finished`: the grammar is complete, nothing may follow.
    """

    token: int
    logprob: TokenLogprob | None = None
    finished: bool = False
    error: LlmosError | None = None


class Chooser:
    """Settings, penalties, random numbers and grammar of one answer.

    `choice` is the answer's number within the request, `seed` the request's. `position` counts the tokens chosen so
    far and `cumulative` is the sum of their log probabilities, kept when `scored`. Nothing here depends on the batch.
    """

    def __init__(
        self, params: SamplingParams, prompt: Sequence[int], seed: int, choice: int = 0,
        constraint: Constraint | None = None,
    ) -> None:  # fmt: skip
        self.params = params
        self.seed = seed
        self.choice = choice
        self.constraint = constraint
        self.position = 0
        self.cumulative = 0.0
        self.drawn = params.temperature > 0.0
        self._penalties = Penalties(params, prompt) if Penalties.wanted(params) else None
        self.scored = params.logprobs is not None or choices(params) > params.n
        self.plain = not (self.drawn or self._penalties or params.logit_bias or self.scored)
        """Whether the greatest logit that the grammar allows is all that is needed."""

    @property
    def mean(self) -> float:
        """The log probability per token; 0.0 of none."""
        return self.cumulative / max(1, self.position)

    def uniform(self, stream: Stream = Stream.TOKEN, ahead: int = 0) -> float:
        """The random number in [0, 1) of the position, or of the one so many tokens ahead."""
        return uniform(self.seed, self.choice, self.position + ahead, stream)

    def takes(self, token: int) -> bool:
        """Whether the token of the greatest logit is the next one for sure, without looking at any other."""
        return self.plain and (self.constraint is None or self.constraint.allows(token))

    def adjust(self, scores: Tensor) -> None:
        """Apply grammar, penalties and bias, in this order, to the scores `[V]` of the next token, in place."""
        if self.constraint is not None:
            scores.masked_fill_(~self.constraint.mask(scores.shape[-1]).to(scores.device), -torch.inf)
        if self._penalties is not None:
            self._penalties.apply(scores)
        if self.params.logit_bias:
            biases = {token: bias for token, bias in self.params.logit_bias.items() if token < scores.shape[-1]}
            tokens = torch.tensor(list(biases), dtype=torch.long, device=scores.device)
            scores[tokens] += torch.tensor(list(biases.values()), dtype=scores.dtype, device=scores.device)

    def accept(self, token: int) -> None:
        """The token is part of the answer."""
        self.position += 1
        if self._penalties is not None:
            self._penalties.count(token)
        if self.constraint is not None:
            self.constraint.advance(token)


def choosers(params: SamplingParams, prompt: Sequence[int], constraint: Constraint | None = None) -> list[Chooser]:
    """One chooser for each answer to make: `best_of`, or `n`. Without a seed one is drawn."""
    seed = secrets.randbits(63) if params.seed is None else params.seed
    return [
        Chooser(params, prompt, seed, choice, None if constraint is None else constraint.copy())
        for choice in range(choices(params))
    ]


def rank(made: Sequence[Chooser]) -> list[Chooser]:
    """The `n` answers to give, best first: those of the greatest log probability per token, as OpenAI's completions
    rank them, so that a short answer is not the better for being short; equal ones in their order.

    Without `best_of` all are given as they are.
    """
    most = made[0].params.n
    return sorted(made, key=lambda chooser: -chooser.mean)[:most] if len(made) > most else list(made)
