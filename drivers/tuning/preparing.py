"""A tuning job before it begins: recipe, data and model are checked together, and what it takes is planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from llmos.syscalls.errors import BadArgument, NotSupported

from ..contract import TuneJob, TunePlan
from ..engine.loader import Bundle
from ..engine.models import Resident
from . import low_rank, methods, passes, planning, serving, subspaces
from .aids import save_memory
from .data import packing
from .data.base import Base
from .data.batches import Batch, Batches, steps_of
from .data.dataset import Dataset
from .data.paired import Paired
from .data.reading import read
from .data.weights import weights_of
from .objectives import chunked
from .objectives.by_name import objective_of
from .objectives.causal import Causal
from .objectives.choices import Choices
from .objectives.consistent import Consistent
from .objectives.distillation import Distillation
from .objectives.preference import Preference
from .objectives.protocol import Objective, Scored
from .others import NONE, Directions, Others
from .recipe import BOTTLENECK, PROMPTS, Recipe
from .resident import ResidentLinear, empty_view, training_view


@dataclass(frozen=True)
class Prepared:
    """A job whose recipe, data and model fit together. `module` is what is trained: adapters around a view of the
    weights that serve, or a view with weights of its own; `judge` is what held-out rows are evaluated with;
    `directions` are those of adapters that are left to them."""

    job: TuneJob
    recipe: Recipe
    data: Dataset
    batches: Batches | Paired
    held_out: Batches | tuple[()]
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
    if resident.shares is not None:
        why = "its weights are split among ranks"
        raise NotSupported(f"{name} cannot be tuned: {why}; load it on a device of one rank", why=why)
    if resident.bundle.about.bottlenecks is not None or resident.bundle.learned:
        why = "it has bottlenecks or learned tokens, of which another result would not know"
        raise NotSupported(f"{name} cannot be tuned: {why}; tune the model that it was made from", why=why)
    base = Base.of(resident.bundle, job.base_path)
    data = (reader or partial(read_data, job))(recipe, base)
    _check_held_out(recipe, data)
    view = training_view(resident.bundle)
    mixed = _mixed(view, recipe, resident.bundle.vocabulary)
    room = 0 if mixed else None
    batches = Batches(data.train, recipe, base.padding, room)
    held_out = Batches(data.held_out, recipe, base.padding, room, shuffled=False) if data.held_out else ()
    steps = steps_of(recipe, len(batches))
    weights = weights_of(recipe, data.train, len(base.labels) or len(data.labels))
    objective = objective_of(recipe, base, weights)
    about = resident.bundle.about
    with torch.random.fork_rng(devices=()):  # an adapter's first values depend on the recipe's seed alone
        torch.manual_seed(recipe.seed)
        module = methods.adapt(view, about.kind, recipe, steps, job.base_path)
        hollow = methods.adapt(empty_view(about), about.kind, recipe, steps) if times else None
    for each in (module, hollow) if hollow is not None else (module,):
        low_rank.lighten(each)
    if isinstance(objective, Preference) and recipe.method in (*methods.WHOLE, BOTTLENECK):
        objective = replace(objective, base=training_view(resident.bundle))
    passes.check(recipe, module)
    serving.check(module, recipe, about.kind)
    plain = objective
    if not recipe.r_drop:  # which compares scores
        objective = _lighter(objective, module, _start_of(batches[0]))
    if recipe.gradient_checkpointing:
        save_memory(module)
    beside = _beside(batches, data, recipe, base.padding)
    directions = others.directions(recipe) if recipe.orthogonal is not None else []
    if recipe.orthogonal is not None:
        subspaces.check(module, directions, recipe.orthogonal.to)
    planned = None
    if hollow is not None:
        learned = _learned(plain, objective, recipe, base, others, hollow=True)
        planned = planning.plan(hollow, learned, recipe, beside.largest(times), _scratch(module, about.dtype))
    tokens = sum(len(example) for example in data.train) * steps * recipe.accumulation // max(1, len(batches))
    facts = {
        "method": recipe.method, "objective": recipe.objective, "data": dict(data.facts),
        "bytes": planned.facts() if planned is not None else {},
        "result": serving.form_of(recipe, about.kind), "packed": bool(batches.room), "unpacked": mixed,
    }  # fmt: skip
    plan = TunePlan(planned.rows(job.id) if planned is not None else (), steps, tokens, facts)
    learned = _learned(plain, objective, recipe, base, others)
    return Prepared(job, recipe, data, beside, held_out, learned, objective, module, plan, resident.bundle, directions)


def read_data(job: TuneJob, recipe: Recipe, base: Base, between: Callable[[], None] = lambda: None) -> Dataset:
    """The data of a job, `between` called after each row. Raises BadArgument, BadModel."""
    return read(job.data.path, job.data.files, recipe, base, between)


def _learned(
    plain: Objective, light: Objective, recipe: Recipe, base: Base, others: Others, hollow: bool = False
) -> Objective:
    """What is learned: the objective of the labels (`plain` with scores, `light` without) and what a teacher says, or
    rows without labels teach. Raises BadArgument, BadModel, NotSupported."""
    if recipe.teacher is not None:
        assert isinstance(plain, Scored)
        asked, teacher = recipe.teacher, others.teacher(recipe, base, hollow)
        return Distillation(plain, teacher, asked.temperature, asked.share, asked.layers, asked.hidden)
    if recipe.unlabelled is not None and recipe.unlabelled.weight:
        assert isinstance(plain, Scored)
        return Consistent(plain, recipe.unlabelled)
    return light


def _check_held_out(recipe: Recipe, data: Dataset) -> None:
    """Raises BadArgument where figures of held-out rows are needed and there are none."""
    choose = recipe.unlabelled.choose if recipe.unlabelled is not None else 0
    for name, got in (("promote_if", recipe.promote_if), ("choose", str(choose or ""))):
        if got and not data.held_out:
            want = "an eval_fraction above 0, or a file of rows named validation"
            said = f"{name} goes with figures of held-out rows, and there are none; it needs {want}"
            raise BadArgument(said, name=name, got=got, want=want)


def _beside(batches: Batches, data: Dataset, recipe: Recipe, padding: int) -> Batches | Paired:
    """Batches with rows without labels beside them, where there is something to learn from these."""
    if data.pool is None or recipe.unlabelled is None or not recipe.unlabelled.weight:
        return batches
    return Paired(batches, data.pool, recipe, padding)


def _lighter(objective: Objective, module: nn.Module, start: Batch) -> Objective:
    """The same objective without the scores of all tokens at once, where the model allows it."""
    if not isinstance(objective, Causal | Preference | Choices) or not chunked.fits(module, start):
        return objective
    if not isinstance(objective, Causal):
        return replace(objective, room=chunked.ROOM)
    return chunked.Chunked(smoothing=objective.smoothing)


def _mixed(view: Any, recipe: Recipe, vocabulary: int) -> str:
    """Why texts cannot stand in one row of this model; empty where they can, or where none are to."""
    if recipe.objective != "causal-lm" or not recipe.packing:
        return ""
    if recipe.method in PROMPTS:
        return "learned tokens stand before each row, not before each text"
    return packing.crosses(view, vocabulary)


def _start_of(batch: Batch, tokens: int = 8) -> Batch:
    """A batch small enough to try something."""
    rows = (slice(1), slice(tokens))
    labels = batch.labels[rows[: batch.labels.ndim]]
    return Batch(batch.input_ids[rows], batch.position_ids[rows], labels, batch.documents[rows])


def _scratch(module: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of the largest frozen matrix: packed ones are unpacked for their gradient, one at a time."""
    linear = [part for part in module.modules() if isinstance(part, ResidentLinear)]
    return max((part.in_features * part.out_features * dtype.itemsize for part in linear), default=0)
