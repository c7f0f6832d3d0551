"""A search before it begins: space, recipe, data and model are checked, and what its trials take is planned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...contract import Row, TuneJob, TunePlan
from ...engine.models import Resident
from ..data.base import Base
from ..data.dataset import Dataset
from ..job import identity_of
from ..objectives.protocol import Objective
from ..others import NONE, Others
from ..preparing import Prepared, Read, prepare, read_data
from ..recipe import Recipe
from .space import Search, replaced
from .study import check_installed
from .trial import every

_APART = frozenset({
    "method", "rank", "alpha", "dropout", "target_modules", "epochs", "max_steps", "batch_size", "learning_rate",
    "schedule", "warmup_ratio", "weight_decay", "checkpoint_every", "accumulation", "clip", "label_smoothing",
    "gradient_checkpointing", "evaluate_every", "early_stopping", "beta1", "beta2", "epsilon", "layers",
    "modules_to_save", "temperature", "beta", "masked_share", "class_weights", "promote_if",
})  # fmt: skip
"""Fields that the encoded data do not depend on."""

_LIGHT = frozenset({
    "alpha", "epochs", "max_steps", "learning_rate", "schedule", "warmup_ratio", "weight_decay", "seed", "clip",
    "label_smoothing", "beta1", "beta2", "epsilon", "temperature", "beta", "masked_share", "class_weights",
})  # fmt: skip
"""Fields that the bytes of a trial do not depend on."""

_JUDGING = ("smoothing", "class_weights", "temperature", "beta", "share")
"""Settings of objectives that change what a loss is: all trials are measured by the same ones."""


class Data:
    """The data of all trials: read and encoded once for all recipes that want the same of them."""

    def __init__(self, job: TuneJob) -> None:
        self._job = job
        self._known: dict[tuple[Any, ...], Dataset] = {}

    def __call__(self, recipe: Recipe, base: Base, between: Callable[[], None] = lambda: None) -> Dataset:
        """Raises BadArgument, BadModel."""
        key = tuple(value for name, value in _items(recipe) if name not in _APART)
        if key not in self._known:
            self._known[key] = read_data(self._job, recipe, base, between)
        return self._known[key]


def _items(recipe: Recipe) -> list[tuple[str, Any]]:
    return [(each.name, getattr(recipe, each.name)) for each in dataclasses.fields(recipe)]


@dataclass(frozen=True)
class PreparedSearch:
    """A search whose space, recipe, data and model fit together.

    Attributes:
        job: with the search in its recipe.
        search: what is tried.
        resident: the model that serves.
        data: of all trials.
        recipe: as it is, without the search.
        steps: of a trial with it.
        evaluations: between them.
        plan: of all trials.
        identity: what the search is known by: hashes of recipe, data and base.
        judging: settings of the objective that all trials are judged with, whatever each learns with.
        others: what else recipes may name.
    """

    job: TuneJob
    search: Search
    resident: Resident
    data: Data
    recipe: Recipe
    steps: int
    evaluations: int
    plan: TunePlan
    identity: Mapping[str, str]
    judging: Mapping[str, Any]
    others: Others = NONE

    def trial(self, number: int, values: Mapping[str, Any], between: Callable[[], None]) -> Prepared:
        """A trial's own job, without a plan. Raises what `prepare` does."""
        job = replace(self.job, recipe=replaced(self.job.recipe, values), keep=self.folder(number))
        return prepare(job, self.resident, partial(self.data, between=between), 0, self.others)

    def folder(self, number: int) -> Path:
        """Where a trial keeps its checkpoints."""
        return self.job.keep / f"trial-{number:04}"

    def judge(self, prepared: Prepared) -> Objective:
        """What the held-out rows of a trial are evaluated with."""
        objective: Any = prepared.judge
        same = {name: value for name, value in self.judging.items() if hasattr(objective, name)}
        judge: Objective = replace(objective, **same)
        return judge


def prepare_search(
    job: TuneJob, resident: Resident, between: Callable[[], None] = lambda: None, others: Others = NONE
) -> PreparedSearch:
    """As `prepare`, of a recipe with a search; `between` is called after each row that is read.

    Raises:
        BadArgument: the search, the recipe or a row of the data is wrong.
        BadModel: the model cannot learn the objective.
        NotSupported: Optuna is missing; the model cannot be tuned where it serves, or not by this method.
    """
    search = Search.of(job.recipe)
    check_installed()
    data = Data(job)
    worst, first = _worst(job, resident, partial(data, between=between), search, others)
    steps = first.plan.steps
    evaluations = max(1, (steps - 1) // every(first.recipe, steps))
    sizes: Mapping[str, int] = worst.plan.facts["bytes"]
    kept = sum(sizes[name] for name in ("trainable", "states", "best"))
    bytes_ = {
        "trials": search.parallel * kept, "best": sizes["trainable"], "gradients": search.parallel * sizes["gradients"],
        "activations": max(sizes["activations"], sizes["updating"]),
    }  # fmt: skip
    total = sum(bytes_.values())
    facts = {
        **first.plan.facts, "bytes": {**bytes_, "total": total},
        "search": {
            "over": [each.name for each in search.space], "trials": search.trials, "parallel": search.parallel,
            "metric": f"eval_{search.metric}", "sampler": search.sampler, "pruner": search.pruner,
        },
    }  # fmt: skip
    rows = (Row("tuning", job.id, predicted=total),)
    plan = TunePlan(rows, search.trials * steps, search.trials * first.plan.tokens, facts)
    identity = identity_of(replace(first, job=job))
    judging = {name: getattr(first.judge, name) for name in _JUDGING if hasattr(first.judge, name)}
    recipe = first.recipe
    return PreparedSearch(job, search, resident, data, recipe, steps, evaluations, plan, identity, judging, others)


def _worst(
    job: TuneJob, resident: Resident, read: Read, search: Search, others: Others
) -> tuple[Prepared, Prepared]:
    """The trial that takes most: of each dimension the end that does, one after another; and the recipe as it is."""
    plain = replace(job, recipe=replaced(job.recipe, {}))
    first = worst = prepare(plain, resident, read, search.parallel, others)
    values: dict[str, Any] = {}
    for dimension in search.space:
        if dimension.name.rpartition(".")[2] in _LIGHT:
            continue
        for end in dimension.ends:
            tried = {**values, dimension.name: end}
            made = prepare(replace(job, recipe=replaced(job.recipe, tried)), resident, read, search.parallel, others)
            if _total(made) > _total(worst):
                worst, values = made, tried
    return worst, first


def _total(prepared: Prepared) -> int:
    return int(prepared.plan.facts["bytes"]["total"])
