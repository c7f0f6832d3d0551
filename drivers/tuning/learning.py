"""What a job learns from and how: batches, held-out rows and objectives, of one task or of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from ..engine.models import Resident
from . import tasks
from .data.base import Base
from .data.batches import Batch, Batches
from .data.dataset import Dataset
from .data.mixing import Mixture
from .data.paired import Paired
from .data.weights import weights_of
from .objectives import chunked
from .objectives.by_name import objective_of
from .objectives.causal import Causal
from .objectives.choices import Choices
from .objectives.consistent import Consistent
from .objectives.distillation import Distillation
from .objectives.preference import Preference
from .objectives.protocol import Objective, Scored
from .objectives.several import Part, Several
from .others import Others
from .recipe import Recipe
from .resident import training_view
from .words import BOTTLENECK, WHOLE

Epochs = Batches | Paired | Mixture
"""Batches by positions that count on through the epochs."""


def epochs(data: Dataset, recipe: Recipe, padding: int, room: int | None) -> Epochs:
    """What is trained on; `room` as `Batches` has it."""
    if recipe.tasks:
        return tasks.mixture(data, recipe, padding, room)
    batches = Batches(data.train, recipe, padding, room)
    if data.pool is None or recipe.unlabelled is None or not recipe.unlabelled.weight:
        return batches
    return Paired(batches, data.pool, recipe, padding)


def held_out(data: Dataset, recipe: Recipe, padding: int, room: int | None) -> Sequence[Batch]:
    """What is only looked at; empty where nothing is held out."""
    if recipe.tasks:
        return tasks.ordered(data, recipe, padding, room)
    return Batches(data.held_out, recipe, padding, room, shuffled=False) if data.held_out else ()


@dataclass(frozen=True)
class Objectives:
    """`learned` is what gradients come from, `judge` what held-out rows are evaluated with, and `hollow` what memory is
    planned with: the first without content."""

    learned: Objective
    judge: Objective
    hollow: Objective


def objectives(
    data: Dataset, recipe: Recipe, base: Base, resident: Resident, module: nn.Module, start: Callable[[int], Batch],
    others: Others,
) -> Objectives:  # fmt: skip
    """The objectives of a job.

    Args:
        data: with names of classes.
        recipe: what is learned.
        base: the model.
        resident: the same in memory.
        module: what is trained.
        start: a small batch of a task, by its number.
        others: what else the recipe may name.

    Raises:
        BadArgument, BadModel, NotSupported: the model lacks what an objective needs, or a teacher what the model has.
    """
    if recipe.tasks:
        parts = []
        for number, task in enumerate(recipe.tasks):
            own = _plain(data.tasks[task.name], tasks.alone(recipe, task), base, resident)
            made = _light(own, module, start(number))
            parts.append(Part(task.name, made, task.weight, tasks.places(data, task, base)))
        several = Several(parts)
        return Objectives(several, several, several)
    plain = _plain(data, recipe, base, resident)
    judge = plain if recipe.r_drop else _light(plain, module, start(0))  # R-Drop compares scores
    if recipe.teacher is not None:
        assert isinstance(plain, Scored)
        asked, teacher = recipe.teacher, others.teacher(recipe, base, resident)
        taught = Distillation(plain, teacher, asked.temperature, asked.share, asked.layers, asked.hidden)
        return Objectives(taught, judge, replace(taught, teacher=others.teacher(recipe, base, resident, hollow=True)))
    if recipe.unlabelled is not None and recipe.unlabelled.weight:
        assert isinstance(plain, Scored)
        consistent = Consistent(plain, recipe.unlabelled)
        return Objectives(consistent, judge, consistent)
    return Objectives(judge, judge, judge)


def _plain(data: Dataset, recipe: Recipe, base: Base, resident: Resident) -> Objective:
    """The objective of one task, with scores where it has any."""
    weights = weights_of(recipe, data.train, len(base.labels) or len(data.labels))
    objective = objective_of(recipe, base, weights)
    if isinstance(objective, Preference) and recipe.method in (*WHOLE, BOTTLENECK):
        return replace(objective, base=training_view(resident.bundle))
    return objective


def _light(objective: Objective, module: nn.Module, start: Batch) -> Objective:
    """The same objective without the scores of all tokens at once, where the model allows it."""
    if not isinstance(objective, Causal | Preference | Choices) or not chunked.fits(module, start):
        return objective
    if not isinstance(objective, Causal):
        return replace(objective, room=chunked.ROOM)
    return chunked.Chunked(smoothing=objective.smoothing)
