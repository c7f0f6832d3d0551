"""Checking guessed tokens against the model, exactly: what comes out is distributed as if nothing had been guessed.

A draft of a lookup is not drawn: the token is chosen as always, and the draft was right if it is the same one. That is
the acceptance rule below for a draft of probability one, and a seed gives the very tokens it gives without drafts.
A draft that a draft model drew from q is accepted with probability min(1, p/q), else the token is drawn from what p has
more than q (Leviathan, Kalman, Matias 2023; Chen et al. 2023). Greedy answers take a draft when it is the best token.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmos.syscalls.errors import LlmosError

from ..detokenizer import Vocabulary
from .chooser import NO_TOKEN, Chooser, Sampled
from .distribution import invert, peaks, scores_of, to_weights
from .philox import Stream
from .sample import Best, Tile, choose, not_finite, tiles


@dataclass(frozen=True)
class Guess:
    """The drafts of one answer and the rows of the step's logits that judge them.

    `rows[i]` is the row that says what follows the first i drafts: one row more than drafts. `probabilities` `[k, V]`
    are the distributions that a draft model drew them from, as `draft` gives them; None for drafts of a lookup. After
    one of `ends` nothing is looked at.
    """

    chooser: Chooser
    rows: Sequence[int]
    drafts: Sequence[int] = ()
    probabilities: Tensor | None = None
    ends: Collection[int] = ()


def verify(guesses: Sequence[Guess], logits: Tensor, vocabulary: Vocabulary) -> list[list[Sampled]]:
    """Choose and accept the next tokens of each answer from logits `[R, V]`.

    Each gets the drafts that are right and one token more: the right one instead of the first wrong draft, or what
    follows them all. It gets fewer when it ends, its grammar is finished, or at an error, which is its last item.
    """
    made: list[list[Sampled]] = [[] for _ in guesses]
    best = Best(logits)
    left = list(range(len(guesses)))
    position = 0
    while left:
        drawn = [at for at in left if _is_drawn(guesses[at], position)]
        others = [at for at in left if not _is_drawn(guesses[at], position)]
        rows = [guesses[at].rows[position] for at in others]
        chosen = choose([guesses[at].chooser for at in others], logits, vocabulary, rows, best)
        found = dict(zip(others, chosen, strict=True))
        for part in tiles(drawn, logits.shape[-1]):
            found |= zip(part, _judge([guesses[at] for at in part], position, logits, vocabulary, best), strict=True)
        for at, sampled in found.items():
            made[at].append(sampled)
        left = [at for at in left if _goes_on(guesses[at], position, found[at])]
        position += 1
    return made


def draft(choosers: Sequence[Chooser], logits: Tensor, ahead: int, size: int) -> tuple[list[int], Tensor]:
    """Guess the tokens that come `ahead` after the next from a draft model's logits `[R, D]`, one row each.

    Returns them with the distributions they are drawn from, float32 `[R, size]`, where `size` is the width of the
    model's own logits: it never guesses a token that the model has not. Nothing is accepted. Temperature, top-k, top-p
    and min-p are the answer's; what depends on its tokens, penalties and grammar, is left to `verify`. Greedy answers
    get the best token, for which `verify` needs no distribution.
    """
    width = min(size, logits.shape[-1])
    tokens: list[int] = []
    probabilities = torch.zeros(len(choosers), size, device=logits.device)
    for part in tiles(range(len(choosers)), size):
        scores = scores_of(logits[:, :width], part)
        peak, best = peaks(scores)
        weights = to_weights(scores, peak, [choosers[at].params for at in part])
        probabilities[part[0] : part[-1] + 1, :width] = _normal(weights)[:, :width]
        drawn = invert(weights, [choosers[at].uniform(Stream.DRAFT, ahead) for at in part])
        for at, one, other in zip(part, drawn.tolist(), best.tolist(), strict=True):
            tokens.append(one if choosers[at].drawn else other)
    return tokens, probabilities


def trim(chooser: Chooser, drafts: Sequence[int]) -> list[int]:
    """The first drafts, as far as the grammar lets them come: the rest would be looked at in vain."""
    if chooser.constraint is None:
        return list(drafts)
    kept: list[int] = []
    constraint = chooser.constraint.copy()
    for token in drafts:
        if constraint.finished or not constraint.allows(token):
            break
        constraint.advance(token)
        kept.append(token)
    return kept


def _is_drawn(guess: Guess, position: int) -> bool:
    """Whether there is a draft here that a draft model drew."""
    return position < len(guess.drafts) and guess.probabilities is not None and guess.chooser.drawn


def _goes_on(guess: Guess, position: int, sampled: Sampled) -> bool:
    """Whether the draft here was right and what follows it can be looked at."""
    right = position < len(guess.drafts) and sampled.token == guess.drafts[position]
    return right and sampled.error is None and not sampled.finished and sampled.token not in guess.ends


def _judge(
    guesses: Sequence[Guess], position: int, logits: Tensor, vocabulary: Vocabulary, best: Best
) -> list[Sampled]:
    """Accept drawn drafts or replace them."""
    rows = [guess.rows[position] for guess in guesses]
    faults = [not_finite(best.values[row]) for row in rows]
    sound = [at for at, fault in enumerate(faults) if fault is None]
    tile = Tile([guesses[at].chooser for at in sound], logits, [rows[at] for at in sound])
    made: dict[int, Sampled] = {at: _failed(fault) for at, fault in enumerate(faults) if fault is not None}
    made |= {sound[at]: _failed(error) for at, error in enumerate(tile.errors) if error is not None}
    judged = [guesses[sound[at]] for at in tile.drawn]
    for at, token in zip(tile.drawn, _accepted(judged, position, _normal(tile.weights)), strict=True):
        made[sound[at]] = tile.accept(at, token, vocabulary)
    return [made[at] for at in range(len(guesses))]


def _accepted(guesses: Sequence[Guess], position: int, model: Tensor) -> list[int]:
    """The draft or its replacement for each row of the model's probabilities `[rows, W]`."""
    if not guesses:
        return []
    guessed = torch.zeros_like(model)
    for at, guess in enumerate(guesses):
        assert guess.probabilities is not None
        guessed[at, : guess.probabilities.shape[-1]] = guess.probabilities[position]
    drafts = torch.tensor([guess.drafts[position] for guess in guesses], device=model.device).unsqueeze(-1)
    uniforms = torch.tensor([guess.chooser.uniform(Stream.ACCEPT) for guess in guesses], dtype=torch.float64)
    accepts = _accepts(model.gather(-1, drafts), guessed.gather(-1, drafts), uniforms.to(model.device).unsqueeze(-1))
    replaced = invert(_residual(model, guessed), [guess.chooser.uniform() for guess in guesses])
    tokens: list[int] = torch.where(accepts, drafts, replaced.unsqueeze(-1)).squeeze(-1).tolist()
    return tokens


def _accepts(model: Tensor, guessed: Tensor, uniforms: Tensor) -> Tensor:
    """Whether a draft of these probabilities stays: with probability min(1, model / guessed)."""
    return uniforms * guessed.double() < model.double()


def _residual(model: Tensor, guessed: Tensor) -> Tensor:
    """What the model gives more than the draft model did; the model's own where that is nothing but rounding."""
    more = (model - guessed).clamp(min=0.0)
    return torch.where(more.sum(dim=-1, keepdim=True) > 0.0, more, model)


def _normal(weights: Tensor) -> Tensor:
    """Weights to probabilities, in float32."""
    return weights / weights.sum(dim=-1, keepdim=True, dtype=torch.float64).float()


def _failed(error: LlmosError) -> Sampled:
    return Sampled(NO_TOKEN, error=error)
