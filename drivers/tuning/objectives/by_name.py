"""The objective that a recipe names."""

from __future__ import annotations

from llmos.syscalls.errors import NotSupported

from ..data.dataset import Dataset
from ..recipe import Recipe
from .causal import Causal
from .protocol import Objective


def objective_of(recipe: Recipe, data: Dataset) -> Objective:
    """Raises NotSupported for one that cannot be trained yet."""
    if recipe.objective == "causal-lm":
        return Causal(smoothing=recipe.label_smoothing)
    why = f"the objective {recipe.objective} is not trained by this device"
    raise NotSupported(f"{why}; take causal-lm", why=why)
