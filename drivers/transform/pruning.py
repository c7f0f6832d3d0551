"""Which numbers of a matrix are set to 0, and which heads matter least: the formulas of pruning.

Wanda: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", 2023. Two of each four: Mishra
et al., "Accelerating Sparse Deep Neural Networks", 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

FOUR, TWO = 4, 2


def smallest(score: Tensor, share: float) -> Tensor:
    """A mask of the `share` of each row with the least score; among equals the first ones. [N, K] to bool [N, K]."""
    count = round(share * score.shape[-1])
    if count == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    last = score.kthvalue(count, dim=-1, keepdim=True).values
    below, level = score < last, score == last
    wanted = count - below.sum(dim=-1, keepdim=True)
    return below | (level & (level.cumsum(dim=-1) <= wanted))


def smallest_of_all(score: Tensor, share: float) -> Tensor:
    """The same over a whole matrix."""
    return smallest(score.reshape(1, -1), share).view_as(score)


def two_of_four(score: Tensor) -> Tensor:
    """A mask of the two with the least score of each four inputs in a row; what is left over at the end stays."""
    whole = score.shape[1] // FOUR * FOUR
    mask = torch.zeros_like(score, dtype=torch.bool)
    if whole:
        fours = score[:, :whole].reshape(-1, FOUR)
        mask[:, :whole] = smallest(fours, TWO / FOUR).view(score.shape[0], whole)
    return mask


def wanda(weight: Tensor, norms: Tensor) -> Tensor:
    """The score of each weight [N, K]: its size times that of its input, given as norms [K] over calibration text."""
    return weight.float().abs() * norms.float()


def relative_error(weight: Tensor, mask: Tensor, norms: Tensor | None = None) -> float:
    """How large what is cut off is beside the whole (Frobenius); with norms of inputs, an estimate for outputs."""
    scored = weight.float() if norms is None else weight.float() * norms.float()
    whole = float(scored.norm())
    return float(scored[mask].norm()) / whole if whole else 0.0


def head_scores(values: Tensor, outputs: Tensor, groups: int) -> Tensor:
    """How much each group of heads can write: the sum over its heads of the norm of (output part) x (value part).

    Args:
        values: weight of the values' projection [groups * D, K].
        outputs: weight of the output's projection [K, heads * D]; heads of a group lie side by side.

    Returns:
        [groups].
    """
    depth = values.shape[0] // groups
    value = values.float().view(groups, depth, -1)
    output = outputs.float().T.reshape(groups, -1, depth, outputs.shape[0])  # of each group, its heads [D, N]
    inner = value @ value.mT  # |O V|^2 = trace(O^T O V V^T), without the product of both
    outer = output @ output.mT
    squares: Tensor = (outer * inner[:, None].mT).sum(dim=(2, 3))
    return squares.clamp(min=0).sqrt().sum(dim=1)
