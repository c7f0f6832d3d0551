"""A tuning job before it begins: recipe, data and model are checked together, and what it takes is planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from llmos.syscalls.errors import BadArgument

from ..contract import TuneJob, TunePlan
from ..engine.loader import Bundle
from ..engine.models import Resident
from . import generating, learning, low_rank, methods, passes, planning, serving, subspaces
from .aids import save_memory
from .data import packing
from .data.base import Base
from .data.batches import Batch, steps_of
from .data.dataset import Dataset
from .data.reading import read
from .objectives import chunked
from .objectives.protocol import Objective
from .learning import Epochs
from .others import NONE, Directions, Others, check_whole
from .recipe import Recipe
from .resident import ResidentLinear, empty_view, training_view
from .words import PROMPTS


@dataclass(frozen=True)
class Prepared:
    """A job whose recipe, data and model fit together. `module` is what is trained: adapters around a view of the
    weights that serve, or a view with weights of its own; `judge` is what held-out rows are evaluated with;
    `directions` are those of adapters that are left to them."""

    job: TuneJob
    recipe: Recipe
    data: Dataset
    batches: Epochs
    held_out: Sequence[Batch]
    objective: Objective
    judge: Objective
    module: Any
    plan: TunePlan
    bundle: Bundle
    directions: Sequence[Directions] = ()

    @property
    def padding(self) -> int:
        """The token of places that hold none."""
        return Base.of(self.bundle).padding


Read = Callable[[Recipe, Base], Dataset]
"""The data of a recipe for a base, encoded."""


def prepare(
    job: TuneJob, resident: Resident, reader: Read | None = None, times: int = 1, others: Others = NONE
) -> Prepared:
    """Check all that can be checked before any work is done, and plan it.

    Args:
        job: what is to be done.
        resident: the model that serves.
        reader: where the data are had from, if they may be there already.
        times: how many jobs like this share a pass, which the plan is then for; 0 for no plan.
        others: what else the recipe may name.

    Raises:
        BadArgument: the recipe or a row of the data is wrong.
        BadModel: the model cannot learn the objective.
        NotSupported: the model cannot be tuned where it serves, or not by this method.
    """
    recipe, name = Recipe.of(job.recipe), job.base_path or job.model
    check_whole(resident, f"{name} cannot be tuned", "tune")
    base, about = Base.of(resident.bundle, job.base_path), resident.bundle.about
    data = (reader or partial(read_data, job))(recipe, base)
    _check_held_out(recipe, data)
    questions = generating.asked_of(recipe, data, base.context)
    view = training_view(resident.bundle)
    mixed = _mixed(view, recipe, resident.bundle.vocabulary)
    room = 0 if mixed else None
    batches = learning.epochs(data, recipe, base.padding, room)
    steps = steps_of(recipe, len(batches))
    with torch.random.fork_rng(devices=()):  # an adapter's first values depend on the recipe's seed alone
        torch.manual_seed(recipe.seed)
        module = methods.adapt(view, about.kind, recipe, steps, job.base_path)
        hollow = methods.adapt(empty_view(about), about.kind, recipe, steps) if times else None
    for each in (module, hollow) if hollow is not None else (module,):
        low_rank.lighten(each)
    passes.check(recipe, module)
    serving.check(module, recipe, about.kind)
    objectives = learning.objectives(
        data, recipe, base, resident, module, lambda task: _start_of(batches.largest(1)[task]), others
    )
    if recipe.gradient_checkpointing:
        save_memory(module)
    directions = others.directions(recipe) if recipe.orthogonal is not None else []
    if recipe.orthogonal is not None:
        subspaces.check(module, directions, recipe.orthogonal.to)
    planned = None
    if hollow is not None:
        largest = batches.largest(times)
        prompts = generating.prompts_of(recipe, questions, resident.bundle)
        _tell_scratch(module, hollow, largest)
        planned = planning.plan(hollow, objectives.hollow, recipe, largest, _scratch(module, largest), prompts)
    tokens = sum(len(example) for example in data.train) * steps * recipe.accumulation // max(1, len(batches))
    facts = {
        "method": recipe.method, "objective": recipe.judged_as, "data": dict(data.facts),
        "bytes": planned.facts() if planned is not None else {},
        "result": serving.form_of(recipe, about.kind), "packed": bool(batches.room), "unpacked": mixed,
    }  # fmt: skip
    plan = TunePlan(planned.rows(job.id) if planned is not None else (), steps, tokens, facts)
    return Prepared(
        job, recipe, data, batches, learning.held_out(data, recipe, base.padding, room), objectives.learned,
        objectives.judge, module, plan, resident.bundle, directions,
    )  # fmt: skip


def read_data(job: TuneJob, recipe: Recipe, base: Base, between: Callable[[], None] = lambda: None) -> Dataset:
    """The data of a job, `between` called after each row. Raises BadArgument, BadModel."""
    return read(job.data.path, job.data.files, recipe, base, between)


def _check_held_out(recipe: Recipe, data: Dataset) -> None:
    """Raises BadArgument where figures of held-out rows are needed and there are none."""
    choose = recipe.unlabelled.choose if recipe.unlabelled is not None else 0
    answered = "answers" if recipe.generate is not None else ""
    for name, got in (("promote_if", recipe.promote_if), ("choose", str(choose or "")), ("generate", answered)):
        if got and not data.held_out:
            want = "an eval_fraction above 0, or a file of rows named validation"
            said = f"{name} goes with figures of held-out rows, and there are none; it needs {want}"
            raise BadArgument(said, name=name, got=got, want=want)


def _mixed(view: Any, recipe: Recipe, vocabulary: int) -> str:
    """Why texts cannot stand in one row of this model; empty where they can, or where none are to."""
    every = {task.objective or recipe.objective for task in recipe.tasks} or {recipe.objective}
    if "causal-lm" not in every or not recipe.packing:
        return ""
    if recipe.method in PROMPTS:
        return "learned tokens stand before each row, not before each text"
    return packing.crosses(view, vocabulary)


def _start_of(batch: Batch, tokens: int = 8) -> Batch:
    """A batch small enough to try something."""
    rows = (slice(1), slice(tokens))
    labels = batch.labels[rows[: batch.labels.ndim]]
    return Batch(batch.input_ids[rows], batch.position_ids[rows], labels, batch.documents[rows])


def _tell_scratch(module: Any, hollow: Any, largest: Sequence[Batch]) -> None:
    """Have the head without content know what going through the weights of the real one takes."""
    head, empty = module.get_output_embeddings(), hollow.get_output_embeddings()
    if isinstance(head, ResidentLinear) and empty is not None:
        setattr(empty, chunked.PLANNED, head.scratch(max(batch.input_ids.numel() for batch in largest)))


def _scratch(module: nn.Module, largest: Sequence[Batch]) -> int:
    """Bytes that the gradient of a packed layer's input takes beside: its weights are unpacked for that, in pieces."""
    tokens = max(batch.input_ids.numel() for batch in largest)
    linear = [part for part in module.modules() if isinstance(part, ResidentLinear)]
    return max((part.scratch(tokens) for part in linear), default=0)
