"""Logits to labels with scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...contract import LabelScore, LabelsResult
from .options import Options

FUNCTIONS = ("softmax", "sigmoid", "none")
OPTIONS: Mapping[str, str] = {
    "top_k": "how many labels to answer with, best first; 0 is all; 5 by default",
    "function": "softmax, sigmoid or none; by default what the model was trained for",
}


class LabelChooser:
    """How one request wants the labels of a line. Raises BadArgument for options that do not fit."""

    def __init__(self, config: Any, options: Options, *, one_is_sigmoid: bool = True) -> None:
        self._names = config.id2label
        self._count = options.whole("top_k", 5)
        self._function = options.choice("function", function_of(config, one_is_sigmoid), FUNCTIONS)

    def choose(self, logits: Tensor) -> LabelsResult:
        """The best labels by the logits [labels] of one line."""
        scores = scored(logits.float(), self._function)
        best = torch.topk(scores, min(self._count or len(scores), len(scores)))
        named = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return LabelsResult([LabelScore(str(self._names[index]), score) for index, score in named])


def function_of(config: Any, one_is_sigmoid: bool) -> str:
    """How logits become scores, as the model's configuration tells."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or (one_is_sigmoid and config.num_labels == 1):
        return "sigmoid"
    return "softmax"


def scored(logits: Tensor, function: str) -> Tensor:
    """Logits [..., labels] as scores."""
    if function == "none":
        return logits
    return logits.sigmoid() if function == "sigmoid" else logits.softmax(dim=-1)
