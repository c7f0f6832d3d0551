"""Of numbers: how far off, and whether their order is right."""

from __future__ import annotations

from torch import Tensor


def regression(said: Tensor, wanted: Tensor) -> dict[str, float]:
    """Squared and absolute error; with `r2`, `pearson` and `spearman` where numbers differ, without which they have
    no meaning.

    Args:
        said: float32 [items], at least one.
        wanted: float32 [items].
    """
    from torchmetrics.functional.regression import (
        mean_absolute_error, mean_squared_error, pearson_corrcoef, r2_score, spearman_corrcoef,
    )  # fmt: skip

    said, wanted = said.double(), wanted.double()
    found = {"mse": mean_squared_error(said, wanted), "mae": mean_absolute_error(said, wanted)}
    if _differ(wanted):
        found["r2"] = r2_score(said, wanted)
        if _differ(said):
            found |= {"pearson": pearson_corrcoef(said, wanted), "spearman": spearman_corrcoef(said, wanted)}
    return {name: float(value) for name, value in found.items()}


def _differ(values: Tensor) -> bool:
    return bool((values != values[0]).any())
