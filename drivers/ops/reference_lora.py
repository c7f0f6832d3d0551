"""Plain torch implementations of the two products of low-rank adapters (LoRA, Hu et al. 2021), many adapters at once.

Tokens are sorted by adapter, and the matrices of adapters are stacked, so that one batched product serves a run of
neighbours (the segments of Punica's SGMV, Chen et al. 2023). `a` [S, R, K] and `b` [S, N, R] are such stacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LoraRun:
    """Adjacent tokens whose adapters have adjacent places in their stack, in the same order.

    `start` to `end`: the tokens, all that follow when `end` is None; `first` to `first + count`: the places. Each place
    has as many tokens as any other unless there is `spread`: for every row of the padded batch [count * width] the
    token that fills it, counted from `start`; `packed` then tells the row of each token.
    """

    start: int
    end: int | None
    first: int
    count: int
    spread: Tensor | None = None
    packed: Tensor | None = None


def lora_shrink(x: Tensor, a: Tensor, run: LoraRun) -> Tensor:
    """x [T, K] times A: [tokens of the run, R]."""
    x, a = x[run.start : run.end], a[run.first : run.first + run.count]
    if run.count == 1:
        return x @ a[0].t()
    if run.spread is not None:
        x = x.index_select(0, run.spread)
    hidden = torch.bmm(x.view(run.count, -1, x.shape[1]), a.transpose(1, 2)).flatten(0, 1)
    return hidden if run.packed is None else hidden.index_select(0, run.packed)


def lora_expand(y: Tensor, hidden: Tensor, b: Tensor, run: LoraRun) -> None:
    """Add what `lora_shrink` gave, times B, to the run's tokens of y [T, N], in place."""
    y, b = y[run.start : run.end], b[run.first : run.first + run.count].transpose(1, 2)
    if run.count == 1:
        y.addmm_(hidden, b[0])
    elif run.spread is None or run.packed is None:
        shape = (run.count, -1)
        y.view(*shape, y.shape[1]).baddbmm_(hidden.view(*shape, hidden.shape[1]), b)
    else:
        padded = hidden.index_select(0, run.spread).view(run.count, -1, hidden.shape[1])
        y.add_(torch.bmm(padded, b).flatten(0, 1).index_select(0, run.packed))
