"""The figures that belong to an objective, from what an evaluation gathered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import classes, numbers, retrieval, spans, texts
from .intervals import Interval, bootstrap


@dataclass(frozen=True)
class Gathered:
    """What a model said of the held-out rows, on the CPU.

    Attributes:
        said: by objective
            causal-lm, masked-lm, seq2seq: int64 [tokens], the likeliest token;
            classification, token-classification: float32 [items, classes], scores;
            multi-label: float32 [items, classes], scores, above 0 for what applies;
            regression: float32 [items];
            question-answering: int64 [items, 2], first and last token;
            embedding: int64 [items], at what place, from 1, the right text stands;
            preference: float32 [items], by how much the better answer has become likelier than the worse.
        wanted: the same of what is right: int64 classes or tokens, [items, classes] 0 or 1, numbers, ends; unused for
            embedding and preference.
        losses: float32 [tokens], nats, for those that say tokens.
        rows: int64 [items], what row of the data each item is of, never falling; each its own where it is empty.
        names: of classes; needed for token-classification.
    """

    said: Tensor
    wanted: Tensor
    losses: Tensor = field(default_factory=lambda: torch.empty(0))
    rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    names: Sequence[str] = ()


MAIN: Mapping[str, str] = {
    "causal-lm": "perplexity", "masked-lm": "perplexity", "seq2seq": "perplexity", "classification": "accuracy",
    "multi-label": "f1_micro", "regression": "mae", "token-classification": "entity_f1", "question-answering": "f1",
    "embedding": "mrr", "preference": "accuracy", "multiple-choice": "accuracy",
}  # fmt: skip
"""For each objective, the figure by which it is judged."""

SMALLER_IS_BETTER = frozenset({"perplexity", "loss", "mae", "mse"})


def figures(objective: str, gathered: Gathered) -> dict[str, float]:
    """All figures of an objective; nothing where nothing was gathered.

    Raises:
        KeyError: there is no such objective.
    """
    made = _FIGURES[objective]
    return made(gathered) if len(gathered.said) else {}


def interval(objective: str, gathered: Gathered, samples: int = 200, share: float = 0.95, seed: int = 0) -> Interval:
    """The figure by which an objective is judged, and how much of it is chance; rows are drawn whole.

    Raises:
        KeyError: there is no such objective.
        ValueError: nothing was gathered.
    """
    if not len(gathered.said):
        raise ValueError("nothing was gathered")
    rows = gathered.rows if len(gathered.rows) else torch.arange(len(gathered.said))
    # A row that is drawn twice is two rows: each brings along where it begins.
    begins = torch.ones(len(rows), dtype=torch.int64)
    begins[1:] = rows[1:] != rows[:-1]

    def figure(said: Tensor, wanted: Tensor, begins: Tensor, *losses: Tensor) -> float:
        drawn = Gathered(said, wanted, losses[0] if losses else gathered.losses, begins.cumsum(0), gathered.names)
        return figures(objective, drawn)[MAIN[objective]]

    values = [gathered.said, gathered.wanted, begins, *([gathered.losses] if len(gathered.losses) else [])]
    return bootstrap(*values, statistic=figure, rows=rows, samples=samples, share=share, seed=seed)


def _tokens(gathered: Gathered) -> dict[str, float]:
    right = (gathered.said == gathered.wanted).double().mean()
    return {"perplexity": texts.perplexity(gathered.losses), "token_accuracy": float(right)}


def _classes(gathered: Gathered) -> dict[str, float]:
    count = gathered.said.shape[1]
    found = classes.single(gathered.said.argmax(1), gathered.wanted, max(2, count))
    likely = gathered.said.double().log_softmax(1)  # a score alone says nothing: it counts beside those of the others
    area = classes.roc_auc(likely, gathered.wanted[:, None] == torch.arange(count))
    return found if area is None else {**found, "roc_auc": area}


def _several(gathered: Gathered) -> dict[str, float]:
    wanted = gathered.wanted > 0.5
    found = classes.several(gathered.said > 0, wanted)
    area = classes.roc_auc(gathered.said, wanted)
    return found if area is None else {**found, "roc_auc": area}


def _tags(gathered: Gathered) -> dict[str, float]:
    """Those of classes, and of the entities of each row."""
    said = gathered.said.argmax(1)
    rows = gathered.rows if len(gathered.rows) else torch.arange(len(said))
    _, counts = torch.unique_consecutive(rows, return_counts=True)
    mine, theirs = (
        [[gathered.names[tag] for tag in row.tolist()] for row in torch.split(each, counts.tolist())]
        for each in (said, gathered.wanted)
    )
    return {**classes.single(said, gathered.wanted, max(2, gathered.said.shape[1])), **spans.entities(mine, theirs)}


def _numbers(gathered: Gathered) -> dict[str, float]:
    return numbers.regression(gathered.said, gathered.wanted)


def _ends(gathered: Gathered) -> dict[str, float]:
    exact, near = texts.ends(gathered.said, gathered.wanted)
    return {"exact_match": float(exact.double().mean()), "f1": float(near.double().mean())}


def _places(gathered: Gathered) -> dict[str, float]:
    return retrieval.found(gathered.said)


def _margins(gathered: Gathered) -> dict[str, float]:
    return {"accuracy": float((gathered.said > 0).double().mean()), "margin": float(gathered.said.double().mean())}


_FIGURES: Mapping[str, Callable[[Gathered], dict[str, float]]] = {
    "causal-lm": _tokens, "masked-lm": _tokens, "seq2seq": _tokens, "classification": _classes,
    "multi-label": _several, "regression": _numbers, "token-classification": _tags, "question-answering": _ends,
    "embedding": _places, "preference": _margins, "multiple-choice": _margins,
}  # fmt: skip
