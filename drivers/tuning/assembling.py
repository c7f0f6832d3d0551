"""A prepared job as what the training loop gets: the loss with its aids, what goes on beside, what is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from . import generating, methods, optimizing, passes, tasks
from .aids import Backward
from .checkpoint import Checkpoints
from .data import packing
from .data.batches import Batches
from .data.reading import EARLIER, UNLABELLED
from .ewc import Anchored
from .labelling import ToLabel
from .looks import HeldOut
from .objectives.several import Several
from .preparing import Prepared
from .recipe import Recipe
from .slices import mark
from .training import Companion, Look, Progress, Training


class Companions:
    """Several companions as one."""

    def __init__(self, each: Mapping[str, Companion]) -> None:
        self._each = each

    def stepped(self, step: int) -> None:
        """After an update, all of them in order."""
        for companion in self._each.values():
            companion.stepped(step)

    def states(self) -> dict[str, Tensor]:
        """Those of each, behind its name."""
        return {f"{name}/{key}": value for name, each in self._each.items() for key, value in each.states().items()}

    def restore(self, states: Mapping[str, Tensor]) -> None:
        """Go on from what `states` gave."""
        for name, each in self._each.items():
            start = f"{name}/"
            own = {key.removeprefix(start): value for key, value in states.items() if key.startswith(start)}
            each.restore(own)


def training(
    prepared: Prepared, recipe: Recipe, identity: Mapping[str, str], progress: Callable[[Progress], None], **more: Any
) -> Training:
    """What is trained; `recipe` is the job's own, or one that asks for evaluations at other times."""
    backward, companion = beside(prepared)
    return Training(
        prepared.module, prepared.objective, recipe, prepared.batches, prepared.held_out, labels=prepared.data.labels,
        progress=progress, checkpoints=Checkpoints(prepared.job.keep, identity), mark=mark, companion=companion,
        backward=backward, **{"judge": prepared.judge, **more},
    )  # fmt: skip


def beside(prepared: Prepared) -> tuple[Backward, Companion | None]:
    """How gradients are made, and what goes on beside the loop."""
    recipe, module, objective = prepared.recipe, prepared.module, prepared.objective
    backward = passes.backward_of(recipe, objective, prepared.directions)
    companions: dict[str, Companion] = {}
    ranks = methods.companion_of(module, recipe)
    if ranks is not None:
        companions["ranks"] = ranks
    if recipe.earlier is not None and recipe.earlier.ewc:
        anchored = Anchored(module, objective, rows_of(prepared, recipe.earlier.rows), recipe.earlier.ewc)
        backward = anchored.around(backward, objective.weight)
        companions["anchored"] = anchored
    return backward, Companions(companions) if companions else None


def rows_of(prepared: Prepared, count: int) -> Batches:
    """Old rows, drawn by the seed, one in each batch."""
    assert prepared.data.earlier is not None
    rows = prepared.data.earlier.train
    drawn = packing.order(len(rows), prepared.recipe.seed, 0)[:count]
    alone = Recipe(prepared.recipe.method, prepared.recipe.objective, batch_size=1)
    return Batches([rows[number] for number in drawn], alone, prepared.padding, room=0, shuffled=False)


def looks(prepared: Prepared) -> dict[str, Look]:
    """What is looked at beside the held-out rows."""
    found: dict[str, Look] = {}
    old, pool, recipe = prepared.data.earlier, prepared.data.pool, prepared.recipe
    device = next(iter(optimizing.trainable(prepared.module).values())).device
    if pool is not None and recipe.unlabelled is not None:
        rows = Batches(pool.given, recipe, prepared.padding, room=0, shuffled=False)
        decode = partial(prepared.bundle.tokenizer.decode, skip_special_tokens=True)
        names = prepared.data.labels
        found[UNLABELLED] = ToLabel(rows, pool, recipe.unlabelled, decode, names, device)
    if recipe.generate is not None:
        decode = partial(prepared.bundle.tokenizer.decode, skip_special_tokens=True)
        asked = generating.asked_of(recipe, prepared.data, prepared.bundle.about.context)
        found[generating.TEXTS] = generating.Answers(
            asked, generating.writer_of(recipe, prepared.bundle, device), decode
        )
    room = 0 if not prepared.plan.facts["packed"] else None
    parts = prepared.judge.parts if isinstance(prepared.judge, Several) else ()
    for part, task in zip(parts, recipe.tasks, strict=True):
        own = prepared.data.tasks[task.name]
        if own.held_out:
            kind = task.objective or recipe.objective
            batches = tasks.held_out(prepared.data, recipe, task, prepared.padding, room)
            found[task.name] = HeldOut(task.name, batches, part, kind, device, own.labels)
    if old is not None and old.held_out:
        batches = Batches(old.held_out, recipe, prepared.padding, room, shuffled=False)
        found[EARLIER] = HeldOut(EARLIER, batches, prepared.judge, recipe.objective, device, old.labels)
    return found
