"""The kinds of transformation, and who does each. A module is imported when one of its kind is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument, NotSupported

from ..contract import ModelSource, ProgressSink

Run = Callable[[Sequence[ModelSource], Mapping[str, Any], Path, ProgressSink], Mapping[str, Any]]
"""Makes a model of located ones in an empty folder, as the recipe says (`TransformRecipe` with all its fields).

Returns fields of the manifest; `metrics` among them is what the answer of the task tells too. Progress is told in
layers, with the stage, every few seconds at least. Raises BadModel, BadArgument, NotSupported, OSError.
"""


@dataclass(frozen=True)
class Kind:
    """One kind: `how` is what it did, as the lineage calls it.

    Of the sources, the first `models` are models that the result is made of (None: all), the others are text. `same`
    are fields of the first model's manifest that hold for the result too, although its tensors do not show it.
    """

    module: str
    how: str
    least: int = 1
    models: int | None = 1
    same: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    "quantize": Kind("quantize", "quantized", same=("parameters", "dtype")),
    "prune": Kind("prune", "pruned"),
    "merge": Kind("merge", "merged", least=2, models=None),
    "export": Kind("export", "exported"),
}
COMMON: Mapping[str, type] = {"replace": bool, "alias": str, "licence": str}
"""Options of every kind: store a new version of a model that exists; an alias that it gets; the licence, where the
sources name none."""


def find(name: str) -> tuple[Kind, Run]:
    """A kind, and what does it. Raises NotSupported."""
    kind = KINDS.get(name)
    if kind is None:
        raise NotSupported(f"transform_model: {name} is unknown; {suggest(name, KINDS)}", why="unknown kind")
    run: Run = import_module(f"{__package__}.{kind.module}").run
    return kind, run


def options_of(recipe: Mapping[str, Any], known: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """The recipe's options, of which `known` and those of every kind are taken.

    Raises:
        BadArgument: an option that is unknown, or of a wrong kind.
    """
    options = dict(recipe.get("options") or {})
    everything = {**COMMON, **known}
    for name, value in options.items():
        if name not in everything:
            said = f"{recipe.get('kind')} has no option {name!r}; {suggest(name, everything)}"
            raise BadArgument(said, name=name, want=", ".join(everything))
        wanted = everything[name]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            kinds = wanted if isinstance(wanted, tuple) else (wanted,)
            want = " or ".join(kind.__name__ for kind in kinds)
            said = f"the option {name} is {value!r}; it takes {want}"
            raise BadArgument(said, name=name, got=repr(value)[:80], want=want)
    return options
