"""In which form the result of a method is stored: one that is served without more work.

Low-rank sums are served as adapters beside their base. What else PEFT knows (DoRA, (IA)3, layers that were saved whole,
such as a new head of classes) is worked into the weights, and stored as a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor

from llmos.syscalls.errors import NotSupported

from ..engine.kinds import Kind
from ..engine.loader import Bundle
from ..transform.changes import Change, changes_of
from . import methods, narrow, whole
from .owning import HEADS, tied
from .recipe import BOTTLENECK, PROMPTS, Recipe
from .resident import training_view

ADAPTER, MODEL = "adapter", "model"
SUMS = ("lora", "rslora", "qlora", "adalora")
"""Methods whose results are low-rank sums."""


def form_of(recipe: Recipe, kind: Kind) -> str:
    """`ADAPTER` or `MODEL`. Raises NotSupported for what would not be served, and was not asked for as an adapter."""
    if recipe.result:
        return recipe.result
    if recipe.method in PROMPTS:
        why = "no rung of the engine puts learned tokens before a text; plain PEFT does"
        said = f"{recipe.method}: its result would not be served: {why}"
        raise NotSupported(f"{said}; options.result = {ADAPTER!r} stores it for that; or take lora", why=why)
    plain = recipe.method in SUMS and not recipe.modules_to_save and kind not in HEADS
    return ADAPTER if plain else MODEL


def check(module: Any, recipe: Recipe, kind: Kind) -> None:
    """Raises NotSupported where the result could not be stored in its form, or not be served."""
    if form_of(recipe, kind) == ADAPTER or recipe.method in (*methods.WHOLE, BOTTLENECK):
        return
    base = module.get_base_model()
    ends = [base.get_input_embeddings(), base.get_output_embeddings()] if tied(base) else []
    if any(isinstance(each, BaseTunerLayer | ModulesToSaveWrapper) for each in ends):
        why = "its output layer is its embedding, too, and one of them would move without the other"
        said = f"{type(base).__name__}: {why}; leave it out, or options.result = {ADAPTER!r} stores it for plain PEFT"
        raise NotSupported(said, why=why)


def store(module: Any, recipe: Recipe, bundle: Bundle, folder: Path, labels: Sequence[str] = ()) -> None:
    """Write what came of a method as a model (`whole.export`). Raises OSError."""
    if recipe.method in methods.WHOLE:
        whole.export(module, bundle, folder, labels)
    elif recipe.method == BOTTLENECK:
        narrow.store(module, recipe, bundle, folder, labels)
    else:
        whole.export(training_view(bundle), bundle, folder, labels, changes_in(module))


def changes_in(adapted: Any) -> Mapping[str, Callable[[Tensor], Tensor]]:
    """What becomes of tensors of the base, by the library's names of them: from one to the changed one, in float32.

    Names that the base does not have are of what changes only where it is there, such as a bias.
    """
    tensors, settings = methods.learnt(adapted)
    found = changes_of(tensors, settings.to_dict(), "the adapter")
    return {f"{layer}.{part}": partial(_changed, change) for (layer, part), change in found.items()}


def _changed(change: Change, tensor: Tensor) -> Tensor:
    return change(tensor, 1.0)
