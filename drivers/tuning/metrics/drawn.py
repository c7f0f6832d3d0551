"""The figures of an objective for many draws of rows at once: each is made of sums, in which a row counts as often as
it was drawn. With each row once they are those of `by_objective.figures`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from . import retrieval, spans, texts
from .by_objective import Gathered

Figures = dict[str, Tensor]


def figures(objective: str, gathered: Gathered, counts: Tensor) -> Figures:
    """All figures of an objective, once for each draw.

    Args:
        objective: of the recipe; `classification` for tags whose names nobody knows.
        gathered: at least one item.
        counts: float64 [draws, rows], how often each row is in each draw; as many rows as `rows_of` tells.

    Returns:
        float64 [draws] each, NaN where a draw has nothing to reckon it from.

    Raises:
        KeyError: the objective has no figures of items.
    """
    return _FIGURES[objective](gathered, counts, _places(gathered))


def known(objective: str) -> bool:
    """Whether an objective has figures of items."""
    return objective in _FIGURES


def rows_of(gathered: Gathered) -> int:
    """How many rows there are to draw."""
    return int(_places(gathered)[-1]) + 1


def area(scores: Tensor, of: Tensor, counts: Tensor) -> Tensor:
    """The area under the ROC curve: how likely what is `of` a class has a higher score than what is not; ties are half.

    Args:
        scores: [items].
        of: bool [items].
        counts: float64 [draws, items].

    Returns:
        float64 [draws], NaN where a draw lacks one of both.
    """
    _, level = torch.unique(scores, return_inverse=True)
    levels = int(level.max()) + 1
    there, other = (_summed(counts * each, level, levels) for each in (of, ~of))
    below = other.cumsum(1) - other
    return (there * (below + other / 2)).sum(1) / (there.sum(1) * other.sum(1))


def _places(gathered: Gathered) -> Tensor:
    """int64 [items]: of which row to draw each is."""
    if not len(gathered.rows):
        return torch.arange(len(gathered.said))
    _, places = torch.unique_consecutive(gathered.rows, return_inverse=True)
    made: Tensor = places
    return made


def _summed(values: Tensor, into: Tensor, size: int) -> Tensor:
    """[draws, size] out of [draws, items]."""
    return torch.zeros(len(values), size, dtype=torch.float64).index_add_(1, into, values)


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    return counts @ values.double() / counts.sum(1)


def _shares(parts: Tensor, wholes: Tensor) -> Tensor:
    """0 where there is no whole."""
    return torch.where(wholes > 0, parts / wholes.clamp(min=1e-300), 0.0)


def _rates(right: Tensor, said: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    return {
        "precision": _shares(right, said), "recall": _shares(right, wanted), "f1": _shares(2 * right, said + wanted)
    }  # fmt: skip


def _single(gathered: Gathered, counts: Tensor) -> Figures:
    said, wanted, classes = gathered.said.argmax(1), gathered.wanted, max(2, gathered.said.shape[1])
    made = _summed(counts, wanted * classes + said, classes * classes).view(-1, classes, classes)
    right, told, there = made.diagonal(dim1=1, dim2=2), made.sum(1), made.sum(2)
    occurs = (told + there > 0).double()
    each = _rates(right, told, there)
    macro = {f"{name}_macro": (value * occurs).sum(1) / occurs.sum(1) for name, value in each.items()}
    return {"accuracy": right.sum(1) / made.sum((1, 2)), **macro}


def _area(scores: Tensor, wanted: Tensor, counts: Tensor) -> Figures:
    """The mean over classes that have both; nothing where no draw has any."""
    areas = torch.stack([area(column, of, counts) for column, of in zip(scores.T, wanted.T, strict=True)])
    return {"roc_auc": areas.nanmean(0)} if bool(areas.isfinite().any()) else {}


def _classes(gathered: Gathered, counts: Tensor, places: Tensor) -> Figures:
    counts = counts[:, places]
    wanted = gathered.wanted[:, None] == torch.arange(gathered.said.shape[1])
    return {**_single(gathered, counts), **_area(gathered.said.double().log_softmax(1), wanted, counts)}


def _tags(gathered: Gathered, counts: Tensor, places: Tensor) -> Figures:
    rows = torch.bincount(places).tolist()
    each: list[tuple[Counter[str], ...]] = []
    both = torch.split(gathered.said.argmax(1), rows), torch.split(gathered.wanted, rows)
    for said, wanted in zip(*both, strict=True):
        one, other = (set(spans.spans([gathered.names[tag] for tag in tags.tolist()])) for tags in (said, wanted))
        each.append(tuple(Counter(kind for kind, _, _ in found) for found in (one & other, one, other)))
    kinds = sorted({kind for _, said, wanted in each for kind in (*said, *wanted)})
    right, told, there = (
        counts @ torch.tensor([[row[n][kind] for kind in kinds] for row in each], dtype=torch.float64)
        for n in range(3)
    )
    empty = (told + there).sum(1) == 0
    every = _rates(right.sum(1), told.sum(1), there.sum(1))
    occurs = (told + there > 0).double()
    every["f1_macro"] = (_rates(right, told, there)["f1"] * occurs).sum(1) / occurs.sum(1)
    found = {f"entity_{name}": torch.where(empty, 1.0, value) for name, value in every.items()}
    return {**_single(gathered, counts[:, places]), **found}


def _several(gathered: Gathered, counts: Tensor, places: Tensor) -> Figures:
    counts, said, wanted = counts[:, places], gathered.said > 0, gathered.wanted > 0.5
    right, told, there = (counts @ each.double() for each in (said & wanted, said, wanted))
    found = {"exact_match": _mean((said == wanted).all(1), counts)}
    micro, macro = _rates(right.sum(1), told.sum(1), there.sum(1)), _rates(right, told, there)
    for name in micro:
        found |= {f"{name}_micro": micro[name], f"{name}_macro": macro[name].mean(1)}
    return {**found, **_area(gathered.said, wanted, counts)}


def _numbers(gathered: Gathered, counts: Tensor, places: Tensor) -> Figures:
    counts, said, wanted = counts[:, places], gathered.said.double(), gathered.wanted.double()
    squares = _mean((said - wanted) ** 2, counts)
    found = {"mse": squares, "mae": _mean((said - wanted).abs(), counts)}
    if not bool((wanted != wanted[0]).any()):
        return found
    spread = _mean(wanted**2, counts) - _mean(wanted, counts) ** 2
    found["r2"] = torch.where(spread > 0, 1 - squares / spread, torch.nan)
    if bool((said != said[0]).any()):
        alike = said.expand_as(counts), wanted.expand_as(counts)
        found["pearson"] = _correlation(*alike, counts)
        found["spearman"] = _correlation(_ranks(said, counts), _ranks(wanted, counts), counts)
    return found


def _correlation(one: Tensor, other: Tensor, counts: Tensor) -> Tensor:
    """Of values [draws, items], each counted so often."""
    counts = counts / counts.sum(1, keepdim=True)
    one, other = (each - (counts * each).sum(1, keepdim=True) for each in (one, other))
    both = ((counts * one * one).sum(1) * (counts * other * other).sum(1)).sqrt()
    return torch.where(both > 0, (counts * one * other).sum(1) / both, torch.nan)


def _ranks(values: Tensor, counts: Tensor) -> Tensor:
    """float64 [draws, items], from 1; what is equal shares the mean of its ranks."""
    _, level = torch.unique(values, return_inverse=True)
    there = _summed(counts, level, int(level.max()) + 1)
    return (there.cumsum(1) - there + (there + 1) / 2)[:, level]


def _means(values: Mapping[str, Tensor], counts: Tensor, places: Tensor) -> Figures:
    return {name: _mean(each, counts[:, places]) for name, each in values.items()}


def _ends(gathered: Gathered, counts: Tensor, places: Tensor) -> Figures:
    exact, near = texts.ends(gathered.said, gathered.wanted)
    return _means({"exact_match": exact, "f1": near}, counts, places)


def _found(gathered: Gathered, counts: Tensor, places: Tensor) -> Figures:
    at = gathered.said.double()
    shares = {f"recall_at_{count}": at <= count for count in retrieval.KEPT}
    return _means({"mrr": 1 / at, **shares}, counts, places)


def _margins(gathered: Gathered, counts: Tensor, places: Tensor) -> Figures:
    return _means({"accuracy": gathered.said > 0, "margin": gathered.said}, counts, places)


_FIGURES: Mapping[str, Callable[[Gathered, Tensor, Tensor], Figures]] = {
    "classification": _classes, "token-classification": _tags, "multi-label": _several, "regression": _numbers,
    "question-answering": _ends, "embedding": _found, "preference": _margins, "multiple-choice": _margins,
}  # fmt: skip


def draws(rows: int, samples: int, seed: int = 0) -> Tensor:
    """float64 [samples, rows]: how often each row is drawn when as many are drawn as there are, with repetition."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(rows, (samples, rows), generator=generator)
    ones = torch.ones(samples, rows, dtype=torch.float64)
    return torch.zeros(samples, rows, dtype=torch.float64).scatter_add_(1, drawn, ones)


def span(values: Tensor, share: float) -> Sequence[float]:
    """From where to where `share` of the draws [draws] reach; nothing where fewer than half came to a number."""
    numbers = values[values.isfinite()]
    if len(numbers) * 2 < len(values) or not len(numbers):
        return ()
    rest = (1 - share) / 2
    found: list[float] = numbers.quantile(torch.tensor([rest, 1 - rest], dtype=torch.float64)).tolist()
    return found
