"""Of searches: at what place the right text is found."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

KEPT = (1, 5, 10)


def places(scores: Tensor, wanted: Tensor) -> Tensor:
    """At what place, from 1, the right text stands; what has the same score stands before it.

    Args:
        scores: float32 [queries, texts], higher is nearer.
        wanted: int64 [queries], the number of the right text.

    Returns:
        int64 [queries].
    """
    right = scores.gather(1, wanted[:, None])
    return (scores >= right).sum(dim=1)


def found(at: Tensor, kept: Sequence[int] = KEPT) -> dict[str, float]:
    """Of places: the mean of their inverses, and the share that is among the first.

    Args:
        at: int64 [queries], from 1, at least one.
        kept: how many texts are looked at.
    """
    shares = {f"recall_at_{count}": float((at <= count).double().mean()) for count in kept}
    return {"mrr": float((1 / at.double()).mean()), **shares}
