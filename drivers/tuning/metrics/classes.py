"""Of classes: how many are right, and which are taken for which.

torchmetrics is imported where a figure is asked for: with what it imports itself it takes about 50 MiB.
"""

from __future__ import annotations

import torch
from torch import Tensor


def single(said: Tensor, wanted: Tensor, classes: int) -> dict[str, float]:
    """One class each.

    `accuracy` is also precision, recall and F1 of all items together (micro); those of the classes apart (macro)
    leave out what neither occurs nor is said.

    Args:
        said: int64 [items].
        wanted: int64 [items].
        classes: how many there are, at least 2.
    """
    from torchmetrics.functional import classification

    return {
        "accuracy": float(classification.multiclass_accuracy(said, wanted, classes, "micro")),
        "precision_macro": float(classification.multiclass_precision(said, wanted, classes, "macro")),
        "recall_macro": float(classification.multiclass_recall(said, wanted, classes, "macro")),
        "f1_macro": float(classification.multiclass_f1_score(said, wanted, classes, "macro")),
    }


def several(said: Tensor, wanted: Tensor) -> dict[str, float]:
    """Any number of classes each; `exact_match` counts items of which all are right.

    Args:
        said: bool [items, classes], at least 2 classes.
        wanted: bool [items, classes].
    """
    from torchmetrics.functional.classification import (
        multilabel_exact_match, multilabel_f1_score, multilabel_precision, multilabel_recall,
    )  # fmt: skip

    found = {"exact_match": float(multilabel_exact_match(said.int(), wanted.int(), num_labels=said.shape[1]))}
    for name, figure in (
        ("precision", multilabel_precision), ("recall", multilabel_recall), ("f1", multilabel_f1_score),
    ):  # fmt: skip
        found[f"{name}_micro"] = float(figure(said.int(), wanted.int(), said.shape[1], average="micro"))
        found[f"{name}_macro"] = float(figure(said.int(), wanted.int(), said.shape[1], average="macro"))
    return found


def confusion(said: Tensor, wanted: Tensor, classes: int) -> list[list[int]]:
    """How often class i (the row) was said to be class j (the column); arguments as of `single`."""
    from torchmetrics.functional import classification

    made: list[list[int]] = classification.multiclass_confusion_matrix(said, wanted, num_classes=classes).tolist()
    return made


def roc_auc(scores: Tensor, wanted: Tensor) -> float | None:
    """How likely what is of a class has a higher score for it than what is not: the mean over classes.

    Args:
        scores: float32 [items, classes], of any scale; between items of one class only their order counts.
        wanted: bool [items, classes].

    Returns:
        None where no class has items that are of it as well as items that are not.
    """
    from torchmetrics.functional import classification

    areas = [
        float(classification.binary_auroc(_ranks(column), of.int()))
        for column, of in zip(scores.T, wanted.T, strict=True)
        if 0 < int(of.sum()) < len(of)
    ]
    return sum(areas) / len(areas) if areas else None


def _ranks(scores: Tensor) -> Tensor:
    """Scores as 0 to 1 in the same order: what lies outside would be squeezed, and near 1 ties would arise."""
    _, places = torch.unique(scores, return_inverse=True)
    made: Tensor = places / max(1, int(places.max()))
    return made
