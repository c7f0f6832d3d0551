"""Several models of one architecture into one, tensor by tensor: linear, slerp, ties, dare; and adapters into a base.

With ties, dare and adapters the first source is the base that the others were tuned from. Memory: a tensor of the
result and a shard; of the models, pages of their files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument, BadModel, NotSupported

from ..contract import ModelSource, ProgressSink
from . import adapters, merging, shards
from .kinds import options_of
from .shards import Shards, Tensors

OPTIONS: Mapping[str, type | tuple[type, ...]] = {
    "density": (float, int), "scale": (float, int), "seed": int, "normalize": bool,
}  # fmt: skip
"""Options of the recipe: the part of each difference that ties and dare keep; what the sum of ties is multiplied by;
where dare's random numbers start; whether weights are divided by their sum (yes)."""
DENSITY: Mapping[str, float] = {"ties": 0.2, "dare": 0.5}
"""What the papers use, where nothing is said."""


@dataclass(frozen=True)
class Way:
    """How to merge; with the methods in `BASED` the first source is the base and has no weight."""

    method: str
    weights: Sequence[float]
    density: float = 1.0
    scale: float = 1.0
    seed: int = 0

    def merged(self, name: str, tensors: Sequence[Tensor]) -> Tensor:
        """One tensor of the result, in the dtype of the first: a block at a time."""
        combine = self._combine(name, tensors)
        whole = torch.empty(tensors[0].shape, dtype=tensors[0].dtype)
        parts = zip(*(merging.blocks(tensor) for tensor in tensors), strict=True)
        for into, numbers in zip(merging.blocks(whole), parts, strict=True):
            into.copy_(combine(numbers))
        return whole

    def _combine(self, name: str, tensors: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], Tensor]:
        """What makes float32 numbers of those of each model, for one tensor."""
        base, *others = tensors
        if self.method == "ties":
            least = [merging.least_kept(base, other, self.density) for other in others]
            return lambda parts: merging.ties(parts[0], parts[1:], self.weights, least, self.scale)
        if self.method == "dare":
            seeds = [merging.seed_of(self.seed, name, number) for number in range(len(others))]
            drawn = [torch.Generator().manual_seed(seed) for seed in seeds]
            return lambda parts: merging.dare(parts[0], parts[1:], self.weights, self.density, drawn)
        weights = self.weights
        if self.method == "slerp":
            weights = merging.slerp_weights(base, others[0], self.weights[1])
        return lambda parts: merging.linear(parts, weights)


BASED = ("ties", "dare", "adapter")
METHODS = ("linear", "slerp", *BASED)


def run(
    sources: Sequence[ModelSource], recipe: Mapping[str, Any], folder: Path, progress: ProgressSink
) -> Mapping[str, Any]:
    """Merge; see `kinds.Run`. Raises BadModel naming the tensor in which models differ."""
    way = _way(sources, recipe)
    for source in sources:
        _refuse_quantized(source)
    if way.method == "adapter":
        return adapters.into_base(sources, way.weights, folder, progress)
    with ExitStack() as stack:
        models = [stack.enter_context(shards.opened(source)) for source in sources]
        _check_alike(models)
        shards.copy_rest(sources[0], folder, progress)
        out = Shards(folder)
        for done, name in enumerate(models[0]):
            progress(done, len(models[0]), "tensors", "merge")
            first = models[0].read(name)
            if models[0].floating(name):
                first = way.merged(name, [first, *(model.read(name) for model in models[1:])])
            out.add(name, first)
        out.close()
    return {"metrics": {"method": way.method, "tensors": len(models[0])}}


def _way(sources: Sequence[ModelSource], recipe: Mapping[str, Any]) -> Way:
    """Raises BadArgument."""
    options = options_of(recipe, OPTIONS)
    method = recipe.get("method") or "linear"
    if method not in METHODS:
        raise BadArgument(f"merge has no method {method!r}; {suggest(method, METHODS)}", name="method", got=method)
    others = len(sources) - (method in BASED)
    if method == "slerp" and others != 2:
        raise BadArgument(f"slerp merges two models, {others} are given", name="sources", got=str(others), want="two")
    density = float(options.get("density", DENSITY.get(method, 1.0)))
    if not 0 < density <= 1:
        raise BadArgument(f"density is {density}; it takes more than 0, up to 1", name="density", got=str(density))
    weights = _weights(recipe.get("weights") or [], others, method, options.get("normalize", method != "adapter"))
    return Way(method, weights, density, float(options.get("scale", 1.0)), options.get("seed", 0))


def _weights(given: Sequence[float], count: int, method: str, normalize: bool) -> list[float]:
    """One for each model that is not the base. Raises BadArgument."""
    weights = [float(weight) for weight in given] or [1.0] * count
    if len(weights) != count:
        base = "; the base has none" if method in BASED else ""
        text = f"{method} takes a weight for each of {count} models, {len(weights)} are given{base}"
        raise BadArgument(text, name="weights", got=str(len(weights)), want=str(count))
    if not all(math.isfinite(weight) for weight in weights) or (normalize and sum(weights) <= 0):
        text = f"the weights are {weights}; they must be finite numbers with a sum above 0"
        raise BadArgument(text, name="weights", got=str(weights), want="finite, with a sum above 0")
    return [weight / sum(weights) for weight in weights] if normalize else weights


def _refuse_quantized(source: ModelSource) -> None:
    if source.manifest.get("quant"):
        why = f"it is quantized ({source.manifest['quant']})"
        raise NotSupported(f"{source.path} is not merged: {why}; merge the model that it was made from", why=why)


def _check_alike(models: Sequence[Tensors]) -> None:
    """Raises BadModel when two models are not of one architecture, or differ in a tensor's name or shape."""
    first = models[0]
    kinds = [shards.config_of(model.source).get("model_type") for model in models]
    for model, kind in zip(models[1:], kinds[1:], strict=True):
        one, other = first.source.path, model.source.path
        if kind != kinds[0]:
            raise _differ(model, f"{other} is of the type {kind} and {one} is of {kinds[0]}")
        for name in [*first, *(name for name in model if name not in first)]:
            if name not in model or name not in first:
                lacks, has = (one, other) if name in model else (other, one)
                raise _differ(model, f"{lacks} has no tensor {name}, {has} has one")
            if model.shape(name) != first.shape(name):
                shapes = f"{list(first.shape(name))} in {one} and {list(model.shape(name))} in {other}"
                raise _differ(model, f"{name} has the shape {shapes}")


def _differ(model: Tensors, why: str) -> BadModel:
    text = f"these models cannot be merged: {why}; they must have been tuned from one model"
    return BadModel(text, file=model.source.path, why=why)


