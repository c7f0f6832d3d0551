"""How much each class counts, from how often it stands in the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..recipe import Recipe
from .example import IGNORED, Example

_NEW = 0.999
"""Share of items of a class that say something new, which bounds how much a rare class can count."""


def counts_of(examples: Iterable[Example], classes: int) -> tuple[int, ...]:
    """How many items, rows or tokens, are of each class."""
    counted = Counter(int(label) for example in examples for label in example.labels if label != IGNORED)
    return tuple(counted[number] for number in range(classes))


def class_weights(counts: Sequence[int], how: str) -> tuple[float, ...]:
    """A weight for each class; weighted so, an item counts 1 in the mean. Classes without items count 1.

    Args:
        counts: items of each class.
        how: "balanced", so that all classes together count alike; "effective", the same by their effective number of
            items, (1 - b^n) / (1 - b) with b = 0.999 (Cui et al. 2019), which spares classes of very few items.
    """
    sizes = [(1 - _NEW**count) / (1 - _NEW) if how == "effective" else float(count) for count in counts]
    raw = [1 / size if size else 0.0 for size in sizes]
    total = sum(weight * count for weight, count in zip(raw, counts, strict=True))
    return tuple(weight * sum(counts) / total if weight else 1.0 for weight in raw)


def weights_of(recipe: Recipe, examples: Iterable[Example], classes: int) -> tuple[float, ...] | None:
    """The weights that a recipe asks for; None for none."""
    return class_weights(counts_of(examples, classes), recipe.class_weights) if recipe.class_weights else None
