"""The data of several tasks that are learned together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from llmos.syscalls.errors import BadArgument

from ...contract import SourceFile
from ...engine import kinds
from ..recipe import Recipe
from .base import Base
from .cleaning import lengths_of
from .dataset import Dataset, encode, finished
from .parts import MAIN, parted
from .source import DataSource
from .splits import joined

UNUSED = "unused"
"""What outputs of the head are called that no task has."""


def read_tasks(
    path: str, files: Sequence[SourceFile], recipe: Recipe, base: Base, between: Callable[[], None]
) -> Dataset:
    """Read, check and encode each task by itself; together they are one data set.

    Tasks of a base with a head of classes have a part of its outputs each, in their order: a class of a task is
    called `TASK/CLASS`.

    Raises:
        BadArgument: a file belongs to no task, the head has too few outputs, or what `encode` raises.
        BadModel: the base cannot learn an objective.
    """
    parts = parted(path, files, {task.name: task.files for task in recipe.tasks})
    if parts[MAIN]:
        name, want = parts[MAIN][0].name, "each file to be named by a task"
        raise BadArgument(f"{path}: {name} belongs to no task; it takes {want}", name="tasks", got=name, want=want)
    made: dict[str, Dataset] = {}
    for task in recipe.tasks:
        own = replace(recipe, objective=task.objective or recipe.objective, tasks=())
        known = replace(base, labels=named(base, task.name))
        made[task.name] = finished(encode(DataSource(f"{path} ({task.name})", parts[task.name]), own, known), between)
    return _together(made, base)


def named(base: Base, task: str) -> tuple[str, ...]:
    """The classes of a task that the head knows from before; none where the data are to say it."""
    start = f"{task}/"
    return tuple(name.removeprefix(start) for name in base.labels if name.startswith(start))


def _together(made: dict[str, Dataset], base: Base) -> Dataset:
    names: list[str] = []
    if base.kind in (kinds.SEQUENCE, kinds.TOKEN):
        names = [f"{task}/{label}" for task, own in made.items() for label in own.labels or ("score",)]
        if len(names) > len(base.labels):
            want = f"a base whose num_labels is {len(names)}"
            said = f"tasks need {len(names)} outputs, the head of {base.name} has {len(base.labels)}: {want}"
            raise BadArgument(said, name="tasks", got=", ".join(names)[:200], want=want)
        names += [f"{UNUSED}/{number}" for number in range(len(base.labels) - len(names))]
    train = [example for own in made.values() for example in own.train]
    held_out = [example for own in made.values() for example in own.held_out]
    digest = joined(*(own.digest for own in made.values()))
    facts = {
        "tasks": {task: dict(own.facts) for task, own in made.items()}, "train": lengths_of(train),
        "held_out": lengths_of(held_out), "labels": names, "digest": digest,
    }  # fmt: skip
    return Dataset(train, held_out, tuple(names), digest, facts, tasks=made)
