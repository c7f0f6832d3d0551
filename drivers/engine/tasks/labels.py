"""Logits to labels with scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument

from ...contract import LabelScore, LabelsResult
from .options import Options

FUNCTIONS = ("softmax", "sigmoid", "none")
OPTIONS: Mapping[str, str] = {
    "top_k": "how many labels to answer with, best first; 0 is all; 5 by default",
    "function": "softmax, sigmoid or none; by default what the model was trained for",
    "among": "labels to choose among, or, ending in /, what they begin with: a task of a model that has several",
}


class LabelChooser:
    """How one request wants the labels of a line. Raises BadArgument for options that do not fit."""

    def __init__(self, config: Any, options: Options, *, one_is_sigmoid: bool = True) -> None:
        self._names = config.id2label
        self._count = options.whole("top_k", 5)
        self._function = options.choice("function", function_of(config, one_is_sigmoid), FUNCTIONS)
        self._among = _places(config.id2label, options.texts("among", ()))

    def choose(self, logits: Tensor) -> LabelsResult:
        """The best labels by the logits [labels] of one line."""
        scores = scored((logits[self._among] if self._among else logits).float(), self._function)
        best = torch.topk(scores, min(self._count or len(scores), len(scores)))
        places = self._among or range(len(scores))
        named = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return LabelsResult([LabelScore(str(self._names[places[index]]), score) for index, score in named])


def _places(names: Mapping[int, str], among: Sequence[str]) -> list[int]:
    """The numbers of labels that are asked for; none for all of them. Raises BadArgument for what fits no label."""
    found: set[int] = set()
    for wanted in among:
        begins = wanted if wanted.endswith("/") else None
        fitting = {n for n, name in names.items() if name == wanted or (begins and name.startswith(begins))}
        if not fitting:
            there = ", ".join(list(map(str, names.values()))[:20])
            said = f"among: no label is {wanted!r}; labels are {there}"
            raise BadArgument(said, name="among", got=wanted, want=there)
        found |= fitting
    return sorted(found)


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
