"""Which rows to take next: labels that a model is sure of, and rows that are most worth a label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WAYS = ("entropy", "margin", "least")
"""How doubt is told: how even the classes are; how near the second is to the first; how unlikely the first is."""


@dataclass(frozen=True)
class PseudoLabel:
    """What a model is sure of: the number of a row, its class, and how likely that is to the model."""

    row: int
    label: int
    confidence: float


def pseudo_labels(scores: Tensor, least: float, most: int = 0, temperature: float = 1.0) -> list[PseudoLabel]:
    """Rows whose likeliest class is at least so likely, the surest first; of equally sure ones the first.

    Args:
        scores: float32 [rows, classes], before softmax.
        least: how likely the class has to be, 0 to 1.
        most: rows of one class that are taken at most, so that a frequent class does not crowd out the others; 0 for
            any number.
        temperature: scores are divided by it: above 1 for a model that is too sure of itself.
    """
    likely, labels = (scores.float() / temperature).softmax(1).max(1)
    taken: dict[int, int] = {}
    found = []
    for row in torch.argsort(likely, descending=True, stable=True).tolist():
        label, confidence = int(labels[row]), float(likely[row])
        if confidence < least:
            break
        if not most or taken.get(label, 0) < most:
            taken[label] = taken.get(label, 0) + 1
            found.append(PseudoLabel(row, label, confidence))
    return found


def doubt(scores: Tensor, way: str = "entropy") -> Tensor:
    """How unsure a model is of each row.

    Args:
        scores: float32 [rows, classes], before softmax, at least 2 classes.
        way: one of WAYS.

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


def k_centre(vectors: Tensor, count: int, chosen: Sequence[int] = ()) -> list[int]:
    """Rows that stand for all: each is the one that is farthest from those before it.

    The largest distance of any row to its nearest chosen one is at most twice the smallest that so many rows could
    have (Gonzalez 1985). Of equally far ones the first is taken; where nothing is chosen yet, the one that is farthest
    from the mean begins.

    Args:
        vectors: float32 [rows, size].
        count: how many are to be found; fewer where there are no more rows.
        chosen: rows that are taken already, and not found again.

    Returns:
        their numbers, in the order in which they were found.
    """
    vectors = vectors.double()
    if len(chosen):
        near = torch.cdist(vectors, vectors[list(chosen)]).min(1).values
    else:
        near = (vectors - vectors.mean(0)).norm(dim=1)
    near[list(chosen)] = -1.0
    found: list[int] = []
    for number in range(min(count, len(vectors) - len(set(chosen)))):
        row = int(near.argmax())
        found.append(row)
        away = (vectors - vectors[row]).norm(dim=1)
        first = not number and not len(chosen)
        near = torch.where(near < 0, near, away if first else torch.minimum(near, away))
        near[row] = -1.0
    return found


def next_rows(scores: Tensor, vectors: Tensor, count: int, chosen: Sequence[int] = (), pool: int = 4,
              way: str = "entropy") -> list[int]:  # fmt: skip
    """Rows that are most worth a label: of those that a model is least sure of, the ones that differ most.

    Args:
        scores: float32 [rows, classes], before softmax.
        vectors: float32 [rows, size], what rows are like.
        count: how many.
        chosen: rows that have a label.
        pool: so many times `count` rows are the least sure ones; 1 for doubt alone.
        way: one of WAYS.
    """
    unsure = doubt(scores, way)
    unsure[list(chosen)] = -1.0
    open_ = len(scores) - len(set(chosen))
    rows = torch.argsort(unsure, descending=True, stable=True)[: min(open_, count * pool)].tolist()
    both = [*rows, *chosen]
    found = k_centre(vectors[both], count, range(len(rows), len(both)))
    return [rows[number] for number in found]
