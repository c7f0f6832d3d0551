"""Other loaded models that a recipe names: one that teaches, adapters that were learned before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmos.syscalls.errors import BadArgument, Denied, NotFound
from llmos.syscalls.types import Right, TuneRecipe

from ..objects import ModelObject
from ..session import Session
from .runs import Base, Place

if TYPE_CHECKING:
    from ..core import Kernel

NEEDED = frozenset({Right.READ, Right.RUN})
"""What a program has to be allowed with each: what it says ends up in the result."""


def named_in(recipe: TuneRecipe) -> list[str]:
    """The names in `options.teacher.model` and `options.orthogonal.to`; what else stands there its driver refuses."""
    teacher, orthogonal = (_map(recipe.options.get(name)) for name in ("teacher", "orthogonal"))
    several = orthogonal.get("to")
    named = [teacher.get("model"), *(several if isinstance(several, list | tuple) else ())]
    return list(dict.fromkeys(name for name in named if isinstance(name, str) and name))


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def find(kernel: Kernel, session: Session, model: ModelObject, recipe: TuneRecipe) -> dict[str, ModelObject]:
    """By name what the recipe of a task on `model` names.

    Raises:
        NotFound: the program sees no loaded model of a name.
        Denied: it may not use one.
        BadArgument: one is not on the same device, or is an adapter of another model.
    """
    found: dict[str, ModelObject] = {}
    for name in named_in(recipe):
        other = kernel.models.named(name)
        rights = _rights(kernel, session, other) if other is not None else frozenset()
        if other is None or not rights:
            raise NotFound(f"the recipe names {name!r}, and no model is loaded by that name; llmos ps shows which are")
        if not rights >= NEEDED:
            missing = ", ".join(sorted(right.value for right in NEEDED - rights))
            raise Denied(f"{name} is named in the recipe, and you may not {missing} it", missing=missing)
        if other.driver is not model.driver or other.base not in (None, model):
            elsewhere = other.driver is not model.driver
            beside = "" if other.base is None else other.base.name
            got = f"on {other.driver.name}" if elsewhere else f"an adapter of {beside}"
            want = f"on {model.driver.name}" if elsewhere else f"beside {model.name}"
            said = f"{name} is {got}; the recipe needs it {want}: load it there"
            raise BadArgument(said, name=name, got=got, want=want)
        found[name] = other
    return found


def _rights(kernel: Kernel, session: Session, found: ModelObject) -> frozenset[Right]:
    """What a session may do with a model, by policy or with any handle that it has."""
    held = (entry.rights for entry in kernel.handles.of_session(session.id) if entry.object == found.id)
    return kernel.sessions.rights_for(session, found).union(*held)


def noted(model: ModelObject) -> Base:
    """What is kept of a model in the record of a run, to find or load it again."""
    located = model.located
    place = Place(
        path=model.path.partition("@")[0], filesystem=model.files.name, source=located.source, inner=located.path
    )
    return Base(
        name=model.name, version=model.version, device=model.driver.name, place=place, options=model.options,
        adapter=model.base is not None,
    )  # fmt: skip
