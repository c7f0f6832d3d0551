"""Several tasks in one job: their batches mixed, each with its objective, its outputs of the head and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..engine import kinds
from .data.base import Base
from .data.batches import Batch, Batches
from .data.dataset import Dataset
from .data.mixing import Mixture
from .options.tasks import Task
from .recipe import Recipe


class Ordered(Sequence[Batch]):
    """Held-out batches of all tasks, one task after the other."""

    def __init__(self, sources: Sequence[tuple[int, Batches]]) -> None:
        """`sources`: each with the number of its task."""
        self._places = [(source, task, number) for task, source in sources for number in range(len(source))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> Batch:  # type: ignore[override]
        source, task, number = self._places[position]
        return replace(source[number], task=task)

    def __iter__(self) -> Iterator[Batch]:
        return (self[position] for position in range(len(self)))


def mixture(data: Dataset, recipe: Recipe, padding: int, room: int | None) -> Mixture:
    """What is trained on: batches of one task each."""
    sources = [Batches(data.tasks[task.name].train, alone(recipe, task), padding, room) for task in recipe.tasks]
    return Mixture(sources, recipe.mixing, recipe.seed)


def ordered(data: Dataset, recipe: Recipe, padding: int, room: int | None) -> Ordered:
    """What is held out of any task."""
    return Ordered([
        (number, held_out(data, recipe, task, padding, room))
        for number, task in enumerate(recipe.tasks) if data.tasks[task.name].held_out
    ])  # fmt: skip


def held_out(data: Dataset, recipe: Recipe, task: Task, padding: int, room: int | None) -> Batches:
    """What is held out of a task, of which there is something."""
    return Batches(data.tasks[task.name].held_out, alone(recipe, task), padding, room, shuffled=False)


def alone(recipe: Recipe, task: Task) -> Recipe:
    """The recipe of one task by itself."""
    return replace(recipe, objective=task.objective or recipe.objective, tasks=())


def headed(base: Base) -> bool:
    """Whether tasks have parts of the model's head."""
    return base.kind in (kinds.SEQUENCE, kinds.TOKEN)


def places(data: Dataset, task: Task, base: Base) -> slice | None:
    """The outputs of the head that a task has; None where the base has no classes."""
    if not headed(base):
        return None
    names = list(data.tasks)
    before = sum(outputs(data.tasks[name]) for name in names[: names.index(task.name)])
    return slice(before, before + outputs(data.tasks[task.name]))


def outputs(own: Dataset) -> int:
    """How many outputs of the head a task needs: one for each class, one for a score."""
    return max(1, len(own.labels))
