"""Which rows are most worth a label: those that a model is unsure of and that differ (active learning)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def doubt(scores: Tensor, way: str = "entropy") -> Tensor:
    """How unsure a model is of each row.

    Args:
        scores: float32 [rows, classes], before softmax, at least 2 classes.
        way: one of `options.unlabelled.DOUBTS`.

    Returns:
        float32 [rows], from 0 for sure to 1 for no idea at all.
    """
    likely = scores.float().softmax(1)
    classes = likely.shape[1]
    if way == "entropy":
        entropy: Tensor = torch.special.entr(likely).sum(1)
        return entropy / math.log(classes)
    best: Tensor = likely.topk(2, dim=1).values
    return 1 - (best[:, 0] - best[:, 1]) if way == "margin" else (1 - best[:, 0]) * classes / (classes - 1)


def k_centre(vectors: Tensor, count: int) -> list[int]:
    """Rows that stand for all: each is the one that is farthest from those before it.

    The largest distance of any row to its nearest chosen one is at most twice the smallest that so many rows could
    have (Gonzalez 1985). Of equally far ones the first is taken; the one that is farthest from the mean begins.

    Args:
        vectors: float32 [rows, size].
        count: how many are to be found; fewer where there are no more rows.

    Returns:
        their numbers, in the order in which they were found.
    """
    vectors = vectors.double()
    near = (vectors - vectors.mean(0)).norm(dim=1)
    found: list[int] = []
    for _ in range(min(count, len(vectors))):
        row = int(near.argmax())
        away = (vectors - vectors[row]).norm(dim=1)
        near = torch.where(near < 0, near, torch.minimum(near, away) if found else away)
        near[row] = -1.0
        found.append(row)
    return found


def next_rows(unsure: Tensor, vectors: Tensor, count: int, pool: int = 4) -> list[int]:
    """Rows that are most worth a label: of those that a model is least sure of, the ones that differ most.

    Args:
        unsure: float32 [rows], how much the model doubts each.
        vectors: float32 [rows, size], what rows are like.
        count: how many.
        pool: so many times `count` rows are the least sure ones; 1 for doubt alone.
    """
    rows = torch.argsort(unsure, descending=True, stable=True)[: count * pool]
    return [int(rows[number]) for number in k_centre(vectors[rows], count)]
