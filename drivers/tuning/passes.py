"""How a recipe has gradients made: the plain way, or with the aids that it asks for around it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from llmos.syscalls.errors import BadArgument

from . import aids, orthogonal, subspaces
from .objectives.protocol import Loss, Objective
from .others import Directions
from .recipe import Recipe


def backward_of(recipe: Recipe, objective: Objective, directions: Sequence[Directions] = ()) -> aids.Backward:
    """The backward pass of a micro-batch; `directions` are those of earlier adapters, which are left to them.

    Mixed precision is innermost, so that each pass has it; R-Drop compares two such passes; terms of matrices are
    added to that, in float32; adversarial training adds a pass of all that on moved embeddings.
    """
    loss: Loss = objective.loss
    if recipe.mixed_precision:
        loss = aids.mixed(loss)
    if recipe.r_drop:
        loss = aids.r_drop(loss, recipe.r_drop)
    if recipe.method == "adalora":
        loss = orthogonal.kept_apart(loss, objective.weight)
    if recipe.orthogonal is not None and directions:
        loss = subspaces.kept_apart(loss, objective.weight, directions, recipe.orthogonal.weight)
    asked = recipe.adversarial
    if asked is None:
        return aids.backward_of(loss)
    if asked.method == "fgm":
        return aids.fgm(loss, asked.size)
    return aids.pgd(loss, asked.size, asked.pace, asked.times)


def check(recipe: Recipe, module: nn.Module) -> None:
    """Raises BadArgument where an aid would do nothing with this model."""
    drops = any(isinstance(part, nn.Dropout) and part.p for part in module.modules())
    if recipe.unlabelled is not None and recipe.unlabelled.weight and not recipe.augment and not drops:
        want = "augment, or a dropout above 0"
        said = f"unlabelled rows teach by what is said of them changed, and nothing changes them: it needs {want}"
        raise BadArgument(said, name="unlabelled", got="no change", want=want)
    if recipe.r_drop and not drops:
        want = "a dropout above 0"
        said = f"r_drop compares passes whose dropout differs, and nothing drops out here: it needs {want}, 0.1 say"
        raise BadArgument(said, name="r_drop", got=f"{recipe.r_drop:g}", want=want)
