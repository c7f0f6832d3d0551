"""From scores to the distribution of the next token, and from a number in [0, 1) to a token.

Scores and weights are float32 `[rows, width]`; `width` is the vocabulary rounded up to whole blocks and filled with
-inf (scores) or 0 (weights). Every row is treated alone, so that no row's answer depends on its neighbours. Long rows
are reduced block by block: that is several times faster than `argmax` and `cumsum` over the whole row on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...contract import SamplingParams

BLOCK = 512
SMALLEST = torch.finfo(torch.float32).tiny
FIRST_GUESS = 64
"""How many best tokens are looked at first for top-p; more if they do not reach it."""

GROWTH = 16


def scores_of(logits: Tensor, rows: Sequence[int]) -> Tensor:
    """Float32 scores of some rows of logits `[R, V]`, which stay as they are."""
    size = logits.shape[-1]
    scores = torch.full((len(rows), -(-size // BLOCK) * BLOCK), -math.inf, dtype=torch.float32, device=logits.device)
    for at, row in enumerate(rows):
        scores[at, :size] = logits[row]
    return scores


def peaks(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest value of each row of `[R, V]` of any float dtype and its lowest index. A NaN counts as greatest."""
    size = scores.shape[-1]
    whole = size // BLOCK * BLOCK
    if whole <= BLOCK:
        index = scores.argmax(dim=-1)
        return scores.gather(-1, index.unsqueeze(-1)).squeeze(-1), index
    blocks = scores[:, :whole].view(scores.shape[0], -1, BLOCK)
    block = blocks.amax(dim=-1).argmax(dim=-1)
    rows = torch.arange(scores.shape[0], device=scores.device)
    inner = blocks[rows, block].argmax(dim=-1)
    index = block * BLOCK + inner
    value = scores[rows, index]
    if whole == size:
        return value, index
    rest = scores[:, whole:].argmax(dim=-1) + whole
    above = (scores[rows, rest] > value) | (scores[rows, rest].isnan() & ~value.isnan())
    index = torch.where(above, rest, index)
    return scores[rows, index], index


def to_weights(scores: Tensor, peak: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Turn scores into weights of the tokens, not normalised, in place.

    `peak` `[rows]` is each row's greatest score, which is taken off so that no temperature can overflow. Then come
    temperature, top-k, top-p and min-p as each row's settings say; the filters cut the tail of the distribution, equal
    scores stay or go together.
    """
    heat = [max(each.temperature, SMALLEST) for each in params]
    scores.sub_(peak.unsqueeze(-1)).div_(torch.tensor(heat, device=scores.device).unsqueeze(-1))
    for row, each in enumerate(params):
        least = floor(scores[row], each)
        if least > -math.inf:
            scores[row].masked_fill_(scores[row] < least, -math.inf)
    return scores.exp_()


def floor(scores: Tensor, params: SamplingParams) -> float:
    """The score below which tokens `[width]` are out, when the best has score 0; -inf when none is.

    Top-p keeps the smallest set of best tokens whose probability reaches `top_p` (Holtzman et al. 2019), min-p those
    of at least `min_p` times the best one's (Nguyen et al. 2024); each sees what the filter before left.
    """
    least = math.log(params.min_p) if params.min_p > 0.0 else -math.inf
    limit = params.top_k if params.top_k > 0 else scores.shape[-1]
    if limit < scores.shape[-1]:
        best = torch.topk(scores, limit).values
        return max(least, float(best[-1]) if params.top_p >= 1.0 else _nucleus(best, best, params.top_p))
    return least if params.top_p >= 1.0 else max(least, _nucleus(scores, None, params.top_p))


def _nucleus(scores: Tensor, best: Tensor | None, top_p: float) -> float:
    """The last score of the smallest set with `top_p` of the mass of `scores`; `best` are they if they are sorted."""
    wanted = float(scores.exp().sum(dtype=torch.float64)) * top_p
    count = FIRST_GUESS
    while True:
        count = min(count, scores.shape[-1])
        front = torch.topk(scores, count).values if best is None else best
        reached = front.double().exp().cumsum(dim=-1)
        if best is not None or count == scores.shape[-1] or float(reached[-1]) >= wanted:
            return float(front[min(int((reached < wanted).sum()), front.shape[-1] - 1)])
        count *= GROWTH


def invert(weights: Tensor, uniforms: Sequence[float]) -> Tensor:
    """For each row the token at which the cumulated weight passes the number's share of the whole; int64 [rows].

    A token of weight 0 is never the answer, as long as one of the row has more.
    """
    blocks = weights.view(weights.shape[0], -1, BLOCK)
    sums = blocks.sum(dim=-1, dtype=torch.float64)
    target = torch.tensor(uniforms, dtype=torch.float64, device=weights.device) * sums.sum(dim=-1)
    block, before = _passing(sums, target)
    rows = torch.arange(weights.shape[0], device=weights.device)
    inner, _ = _passing(blocks[rows, block].double(), (target - before).clamp(min=0.0))
    return block * BLOCK + inner


def _passing(weights: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Where the cumulated weights `[rows, N]` pass `target` `[rows]`, and what they were before that."""
    reached = weights.cumsum(dim=-1)
    last = weights.shape[-1] - 1 - (weights > 0).flip(-1).int().argmax(dim=-1)
    index = torch.minimum((reached <= target.unsqueeze(-1)).sum(dim=-1), last)
    at = index.unsqueeze(-1)
    return index, (reached.gather(-1, at) - weights.gather(-1, at)).squeeze(-1)
