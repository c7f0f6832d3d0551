"""What else of the device a job looks at: models that teach, and adapters that were learned before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from llmos.syscalls.errors import BadArgument, BadModel, NotSupported

from ..engine.models import Resident
from .data.base import Base
from .recipe import Recipe
from .resident import empty_view, training_view

Directions = Mapping[str, Tensor]
"""Of an adapter: by the path of a layer the matrix A [rank, in_features] of its low-rank sum."""


@dataclass(frozen=True)
class Others:
    """By the names in the recipe: whole models, and adapters."""

    models: Mapping[str, Resident] = field(default_factory=dict)
    adapters: Mapping[str, Directions] = field(default_factory=dict)

    def teacher(self, recipe: Recipe, base: Base, resident: Resident, hollow: bool = False) -> Any:
        """A view of the model that teaches, frozen; without content where it is `hollow`.

        Raises:
            BadArgument: it is not there, or is an adapter; states of layers cannot be compared.
            BadModel: it says something else than the model is to say.
            NotSupported: part of it lies in memory in a way that cannot be looked at so.
        """
        asked = recipe.teacher
        assert asked is not None
        found = self.models.get(asked.model)
        if found is None:
            want = "a whole model that is loaded on the same device"
            said = f"teacher {asked.model!r} is not {want}"
            raise BadArgument(said, name="teacher", got=asked.model, want=want)
        check_whole(found, f"{asked.model} cannot teach", "take")
        _check_alike(Base.of(found.bundle, asked.model), base, recipe)
        _check_layers(recipe, *(each.bundle.about.config.get_text_config() for each in (resident, found)))
        return empty_view(found.bundle.about) if hollow else training_view(found.bundle)

    def directions(self, recipe: Recipe) -> list[Directions]:
        """Those of the adapters that the recipe names. Raises BadArgument where one is not there."""
        asked = recipe.orthogonal
        assert asked is not None
        for name in asked.to:
            if name not in self.adapters:
                want = "a low-rank adapter that is loaded beside the same base"
                raise BadArgument(f"orthogonal: {name!r} is not {want}", name="to", got=name, want=want)
        return [self.adapters[name] for name in asked.to]


NONE = Others()


def check_whole(resident: Resident, said: str, instead: str) -> None:
    """Raises NotSupported for a model of which a view would be only a part: what is `said`, why, and what to do with
    another one `instead`."""
    if resident.shares is not None:
        why = "its weights are split among ranks"
        raise NotSupported(f"{said}: {why}; load it on a device of one rank", why=why)
    if resident.bundle.about.bottlenecks is not None or resident.bundle.learned:
        why = "it has bottlenecks or learned tokens, of which another result would not know"
        raise NotSupported(f"{said}: {why}; {instead} the model that it was made from", why=why)


def _check_layers(recipe: Recipe, pupil: Any, teacher: Any) -> None:
    """Raises BadArgument for pairs of layers that are not there, or whose states are not as wide."""
    asked = recipe.teacher
    if asked is None or not asked.layers:
        return
    if recipe.objective == "seq2seq":
        want = "no layers"
        said = f"layers of a teacher are not compared for seq2seq, whose states are of two kinds; it takes {want}"
        raise BadArgument(said, name="layers", got=str(asked.layers), want=want)
    sizes = pupil.hidden_size, teacher.hidden_size
    if sizes[0] != sizes[1]:
        want = "a teacher that is as wide, or no layers"
        said = f"layers: states are {sizes[0]} wide, those of {asked.model} {sizes[1]}; it takes {want}"
        raise BadArgument(said, name="layers", got=str(sizes[1]), want=want)
    for pair in asked.layers:
        for number, config in zip(pair, (pupil, teacher), strict=True):
            count = config.num_hidden_layers
            if not -count - 1 <= number <= count:
                want = f"{-count - 1} to {count}"
                said = f"layers: there is no layer {number}; it is {want}"
                raise BadArgument(said, name="layers", got=str(number), want=want)


def _check_alike(teacher: Base, pupil: Base, recipe: Recipe) -> None:
    """Raises BadModel where scores of both are not of the same things."""
    teacher.check(recipe.objective)
    why = ""
    if teacher.tokenizer.get_vocab() != pupil.tokenizer.get_vocab():
        why = "its tokens are others"
    elif teacher.labels != pupil.labels:
        why = f"its labels are {', '.join(teacher.labels) or 'none'}, not {', '.join(pupil.labels) or 'none'}"
    elif teacher.context < (recipe.max_length or pupil.context):
        why = f"it takes {teacher.context} tokens, rows have up to {recipe.max_length or pupil.context}"
    if why:
        said = f"{teacher.name} cannot teach {pupil.name}: {why}; take a teacher of the same tokens and labels"
        raise BadModel(said, file="config.json", why=why)
