"""The next token of each row, in plain torch, without a look at the data from the host.

| op | arguments | answer |
|---|---|---|
| `sample` | logits [R, V], temperature [R], top_k [R], top_p [R], min_p [R], seed [R], counter [R] | tokens [R] |

A token is drawn by the Gumbel-max trick: the greatest of score + Gumbel noise is distributed as softmax(score). The
noise is a function of the row's seed and counter and of the token alone, so a row's token depends on that row alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .philox import MASK, philox

STREAM = 3
"""The third word of every counter here; other uses of a seed have other streams, see the engine's `Stream`."""
COOLEST = torch.finfo(torch.float32).tiny
"""Lower temperatures than this count as it; only 0 is greedy."""
NO_TOKEN = -1

UNIT = 2.0**-32
LARGEST = 1.0 - 2.0**-24
"""The greatest float32 below 1."""
SMALL = 2.0**-6
"""Below this the logarithm of 1 - v is taken by its series: the difference would round v away."""


def sample(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor, seed: Tensor, counter: Tensor
) -> Tensor:
    """Tokens int64 [R] for logits [R, V] of any float dtype.

    Of each row: `temperature` float32, 0 for the greatest logit (the lowest of equal ones); `top_k` int32, 0 for off;
    `top_p` float32, 1 for off; `min_p` float32, 0 for off; `seed` int64; `counter` int64, the position in its low 32
    bits and the number of the answer above. The three filters are those of `filter_logits` after temperature. A row
    whose greatest logit is not finite gets -1.
    """
    wide = logits.float()
    peak = wide.amax(dim=-1, keepdim=True)
    best = wide.argmax(dim=-1)
    scores = (wide - peak) * (1.0 / temperature.clamp(min=COOLEST).unsqueeze(-1))
    kept = scores >= floors(scores, top_k, top_p, min_p).unsqueeze(-1)
    raced = torch.where(kept, scores + gumbel(seed, counter, wide.shape[-1]), -torch.inf).argmax(dim=-1)
    tokens = torch.where(temperature > 0.0, raced, best)
    return torch.where(peak.squeeze(-1).isfinite(), tokens, NO_TOKEN)


def floors(scores: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """The lowest score [R] that each row keeps of scores [R, V] whose greatest is 0; -inf when it keeps all.

    All three filters cut the tail of the sorted scores, so that together they are one threshold, and equal scores stay
    or go together.
    """
    size = scores.shape[-1]
    ordered = scores.sort(dim=-1, descending=True).values
    cut = (top_k > 0) & (top_k < size)
    count = torch.where(cut, top_k, size).long().unsqueeze(-1)
    least = torch.where(cut.unsqueeze(-1), ordered.gather(-1, count - 1), -torch.inf)
    weights = ordered.masked_fill(ordered < least, -torch.inf).exp().double()
    reached = weights.cumsum(dim=-1)
    wanted = top_p.double().unsqueeze(-1) * reached[:, -1:]
    count = (reached - weights < wanted).sum(dim=-1, keepdim=True).clamp(min=1)
    nucleus = torch.where(top_p.unsqueeze(-1) < 1.0, ordered.gather(-1, count - 1), -torch.inf)
    return torch.maximum(torch.maximum(least, nucleus).squeeze(-1), min_p.log())


def gumbel(seed: Tensor, counter: Tensor, size: int) -> Tensor:
    """Gumbel noise float32 [R, size] of rows with `seed` and `counter` int64 [R], from -2.9 to 22.9.

    It is -log(e) of e = -log(1 - v) with v in (0, 1) from 32 random bits, which keep their precision where it counts:
    near 0, where the noise is great.
    """
    groups = torch.arange(-(-size // 4), device=seed.device).unsqueeze(0)
    low, high = (counter & MASK).unsqueeze(-1), (counter >> 32 & MASK).unsqueeze(-1)
    key = (seed & MASK).unsqueeze(-1), (seed >> 32 & MASK).unsqueeze(-1)
    words = torch.stack(philox((low, high, torch.full_like(low, STREAM), groups), key), dim=-1)
    v = ((words.flatten(1)[:, :size].float() + 0.5) * UNIT).clamp(max=LARGEST)
    series = v * (1.0 + v * (0.5 + v * (1.0 / 3.0 + v * 0.25)))
    return -torch.where(v < SMALL, series, -(1.0 - v).log()).log()
