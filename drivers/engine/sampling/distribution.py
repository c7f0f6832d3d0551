"""From scores to the distribution of the next token, and from a number in [0, 1) to a token.

Scores and weights are float32 `[rows, width]`; `width` is the vocabulary rounded up to whole blocks and filled with
-inf (scores) or 0 (weights). Every row is treated alone, so that no row's answer depends on its neighbours. Long rows
are reduced block by block: that is several times faster than `argmax` and `cumsum` over the whole row on a CPU.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from ...contract import SamplingParams

BLOCK = 512
SMALLEST = torch.finfo(torch.float32).tiny
FIRST_LOOK = 64
"""How many best tokens are looked at first for top-p."""


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
    blocks = scores[:, :whole].view(scores.shape[0], whole // BLOCK, BLOCK)
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
    """The weights of the tokens, not normalised; the scores are used up.

    `peak` `[rows]` is each row's greatest score, which is taken off so that no temperature can overflow. Then come
    temperature, top-k, top-p and min-p as each row's settings say; each filter sees what the one before left, and equal
    tokens stay or go together. Top-p keeps the smallest set of best tokens whose probability reaches it (Holtzman et
    al. 2019), min-p those of at least so many times the best one's probability (Nguyen et al. 2024).
    """
    heat = [max(each.temperature, SMALLEST) for each in params]
    scores.sub_(peak.unsqueeze(-1)).div_(torch.tensor(heat, device=scores.device).unsqueeze(-1))
    for row, each in enumerate(params):
        if 0 < each.top_k < scores.shape[-1]:
            least = float(best(scores[row], each.top_k)[0][-1])
            torch.threshold_(scores[row], _below(least), -math.inf)
    weights = torch.softmax(scores, dim=-1)
    for row, each in enumerate(params):
        if each.top_p < 1.0:
            torch.threshold_(weights[row], nucleus(weights[row], each.top_p), 0.0)
        if each.min_p > 0.0:
            torch.threshold_(weights[row], _below(each.min_p * float(weights[row].amax())), 0.0)
    return weights


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` greatest of scores `[width]`, greatest first, and their tokens; which of equal ones is open.

    Only blocks are looked into whose greatest score is one of the `count` greatest of all blocks: no other holds one.
    """
    blocks = scores.view(-1, BLOCK) if scores.shape[0] % BLOCK == 0 else scores.view(1, -1)
    if count == 0 or 2 * count > blocks.shape[0]:
        values, tokens = torch.topk(scores, count)
        return values, tokens
    tops = blocks.amax(dim=-1)
    kept = (tops >= torch.topk(tops, count).values[-1]).nonzero().squeeze(-1)
    values, places = torch.topk(blocks[kept].view(-1), count)
    return values, kept[places // BLOCK] * BLOCK + places % BLOCK


def nucleus(probabilities: Tensor, top_p: float) -> float:
    """What the probabilities `[width]` of top-p's tokens are above.

    A look at the best few is mostly enough. Else the bound is found by halving the numbers that it can be: with a
    large vocabulary that is ten times faster than sorting it.
    """
    front, _ = best(probabilities, min(FIRST_LOOK, probabilities.shape[-1]))
    reached = front.double().cumsum(dim=-1)
    if float(reached[-1]) >= top_p:
        return _below(float(front[int((reached < top_p).sum())]))
    low, high = 0, _bits(float(front[-1]))
    while high - low > 1:
        middle = (low + high) // 2
        if float(torch.threshold(probabilities, _number(middle), 0.0).sum()) >= top_p:
            low = middle
        else:
            high = middle
    return _number(low)


def _below(number: float) -> float:
    """The greatest float32 below a float32."""
    return float(torch.nextafter(torch.tensor(number), torch.tensor(-math.inf)))


def _bits(number: float) -> int:
    """Where a positive float32 stands among all of them, in order."""
    (bits,) = struct.unpack("<i", struct.pack("<f", number))
    return int(bits)


def _number(bits: int) -> float:
    (number,) = struct.unpack("<f", struct.pack("<i", bits))
    return float(number)


def invert(weights: Tensor, uniforms: Sequence[float]) -> Tensor:
    """For each row the token at which the cumulated weight passes the number's share of the whole; int64 [rows].

    A token of weight 0 is never the answer, as long as one of the row has more.
    """
    blocks = weights.view(weights.shape[0], -1, BLOCK)
    sums = blocks.sum(dim=-1, dtype=torch.float64)
    target = torch.tensor(uniforms, dtype=torch.float64, device=weights.device) * sums.sum(dim=-1)
    block, before = _passing(sums, target)
    rows = torch.arange(weights.shape[0], device=weights.device)
    inner, _ = _passing(blocks[rows, block].double(), target - before)
    return block * BLOCK + inner


def _passing(weights: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Where the cumulated weights `[rows, N]` pass `target` `[rows]`, and what they were before that.

    Where rounding keeps them from passing it, the last weight above 0.
    """
    reached = weights.cumsum(dim=-1)
    last = weights.shape[-1] - 1 - (weights > 0).flip(-1).int().argmax(dim=-1)
    index = torch.minimum((reached <= target.unsqueeze(-1)).sum(dim=-1), last)
    before = torch.nn.functional.pad(reached, (1, 0)).gather(-1, index.unsqueeze(-1)).squeeze(-1)
    return index, before
