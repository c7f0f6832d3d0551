"""In which form the result of a method is stored: one that is served without more work.

Low-rank sums are served as adapters beside their base. What else PEFT knows (DoRA, (IA)3, layers that were saved whole,
such as a new head of classes) is worked into the weights, and stored as a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor

from llmos.syscalls.errors import NotSupported

from ..engine import learned
from ..engine.kinds import CAUSAL, Kind
from ..engine.loader import Bundle
from ..transform.changes import Change, changes_of
from . import methods, narrow, whole
from .owning import HEADS, tied
from .recipe import Recipe
from .resident import training_view
from .words import BOTTLENECK, PROMPTS

ADAPTER, MODEL = "adapter", "model"
SUMS = ("lora", "rslora", "qlora", "adalora")
"""Methods whose results are low-rank sums."""


def form_of(recipe: Recipe, kind: Kind) -> str:
    """`ADAPTER` or `MODEL`. Raises NotSupported for what would not be served, and was not asked for as an adapter."""
    if recipe.method in PROMPTS and recipe.result != ADAPTER and kind is not CAUSAL:
        why = f"the engine has learned tokens before texts of causal models only, and this is: {kind.name}"
        said = f"{recipe.method}: its result would not be served: {why}"
        raise NotSupported(f"{said}; options.result = {ADAPTER!r} stores it for that; or take lora", why=why)
    if recipe.result:
        return recipe.result
    plain = recipe.method in SUMS and not recipe.modules_to_save and kind not in HEADS
    return ADAPTER if plain else MODEL


def check(module: Any, recipe: Recipe, kind: Kind) -> None:
    """Raises NotSupported where the result could not be stored in its form, or not be served."""
    if form_of(recipe, kind) == ADAPTER or recipe.method in (*methods.WHOLE, BOTTLENECK):
        return
    if recipe.method in PROMPTS:
        _check_cached(module, recipe)
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
    elif recipe.method in PROMPTS:
        whole.export(training_view(bundle), bundle, folder, labels)
        learned.write(cached(module), folder)
    else:
        whole.export(training_view(bundle), bundle, folder, labels, changes_in(module))


@torch.no_grad()
def cached(adapted: Any) -> list[tuple[Tensor, Tensor]]:
    """Keys and values [1, heads, tokens, size] that learned tokens come to, in each layer."""
    given, base = adapted.eval().get_prompt(1), adapted.get_base_model()
    if isinstance(given, Tensor):
        rows = given.to(base.get_input_embeddings()(torch.zeros(1, 1, dtype=torch.int64)).dtype)
        given = base(inputs_embeds=rows, use_cache=True).past_key_values
    return [(layer.keys, layer.values) for layer in given.layers]


def _check_cached(adapted: Any, recipe: Recipe) -> None:
    """Raises NotSupported for a model that keeps more of its tokens than keys and values."""
    base = adapted.get_base_model()
    if base._is_stateful:
        why = "it keeps a state beside keys and values"
        said = f"{recipe.method}: learned tokens are not served before texts of {type(base).__name__}: {why}"
        raise NotSupported(f"{said}; options.result = {ADAPTER!r} stores them for plain PEFT; or take lora", why=why)


def changes_in(adapted: Any) -> Mapping[str, Callable[[Tensor], Tensor]]:
    """What becomes of tensors of the base, by the library's names of them: from one to the changed one, in float32.

    Names that the base does not have are of what changes only where it is there, such as a bias.
    """
    tensors, settings = methods.learnt(adapted)
    found = changes_of(tensors, settings.to_dict(), "the adapter")
    return {f"{layer}.{part}": partial(_changed, change) for (layer, part), change in found.items()}


def _changed(change: Change, tensor: Tensor) -> Tensor:
    return change(tensor, 1.0)
