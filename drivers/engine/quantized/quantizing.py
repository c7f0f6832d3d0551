"""Quantizing a model while it is loaded: each linear layer becomes one of quantized weights as soon as it was read.

So there is never more of the weights in memory than what stays, and one layer. By round to nearest, since nothing runs
through a model that is not there yet; layers and schemes by the same rule as for stored models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps

from llmos.syscalls.errors import BadArgument, NotSupported

from ...ops.quantized import QuantizedWeight, Scheme
from ...quant.nearest import nearest
from ...quant.rule import Wish, schemes
from .stored import NUMBERS, SCALE, SHIFT, StoredEmbedding, StoredLinear

CHUNK = 1 << 22
"""Weights that are quantized at a time."""
METHOD = "rtn"

Report = Callable[[], None]
"""Called every moment: a sign of life."""


def wish_of(quant: Mapping[str, Any], path: str) -> Wish:
    """What `load_model` is asked for. Raises BadArgument, NotSupported for what needs more than the weights."""
    wish = Wish.of(quant)
    refused = {
        f"the method {wish.method} runs text through the model": wish.method != METHOD,
        "a byte budget weighs all layers first": wish.byte_budget is not None,
    }
    for why, wrong in refused.items():
        if wrong:
            said = f"{path} cannot be quantized so while it is loaded: {why}; use transform_model and load the result"
            raise NotSupported(said, why=why)
    return wish


def chosen(model: Any, wish: Wish) -> dict[str, Scheme]:
    """The linear layers of a model, on the meta device, that a wish is for. Raises BadArgument where there are none."""
    wide = [*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())]
    head = model.get_output_embeddings()
    found, heads = {}, set()
    for name, part in model.named_modules():
        if type(part) is not nn.Linear or any(kept in name.split(".") for kept in wide):
            continue
        if part is head:
            if not all(readable(model.get_submodule(other)) for other in _shared(model, name)):
                continue
            heads.add(name)
        found[name] = (part.out_features, part.in_features)
    made = schemes(found, wish, heads)
    if not made:
        said = f"{type(model).__name__} has no linear layers to quantize with {wish}"
        raise BadArgument(said, name="quant", got=wish.short, want="fewer patterns in keep, or no quant")
    return made


def readable(embedding: nn.Module) -> bool:
    """Whether `StoredEmbedding` can stand for an embedding."""
    return type(embedding) is nn.Embedding or hasattr(embedding, "scalar_embed_scale")


class Quantize(ConversionOps):
    """What the library calls for the weights of a layer once it has read them."""

    def __init__(self, schemes: Mapping[str, Scheme], tied: Mapping[str, Sequence[str]], report: Report) -> None:
        self._schemes = dict(schemes)
        self._heads = {name: head for head, names in tied.items() for name in (head, *names)}
        self._report = report

    def wants(self, key: str) -> bool:
        """Whether a parameter is the weight of a layer to be quantized."""
        name, _, part = key.rpartition(".")
        return part == "weight" and self._heads.get(name, name) in self._schemes

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **more: Any
    ) -> dict[str, Any]:
        """Full names of parameters to their tensors; those of the quantized layers go by their parts' names."""
        made: dict[str, Tensor] = {}
        for key, value in input_dict.items():
            tensor = value[0] if isinstance(value, list) else value
            if self.wants(key):
                made |= self._replaced(more["model"], key.rpartition(".")[0], tensor, more["missing_keys"])
            else:
                made[key] = tensor
        return made

    def _replaced(self, model: Any, name: str, weight: Tensor, missing: set[str] | None) -> dict[str, Tensor]:
        head = self._heads.get(name, name)
        layer = model.get_submodule(head)
        if isinstance(layer, nn.Linear) and layer.weight.shape != weight.shape:
            del self._schemes[head]  # which the library then finds out
            return {f"{name}.weight": weight}
        others = [other for other, its in self._heads.items() if its == head and other != head]
        if missing is not None:
            missing.difference_update(f"{each}.weight" for each in (head, *others))
        if isinstance(layer, StoredLinear):
            return {}  # an embedding that has the same weights
        made = quantize(weight, self._schemes[head], self._report)
        stored = StoredLinear(made, layer.bias, weight.dtype)
        stored.passes = True
        model.set_submodule(head, stored)
        for other in others:
            model.set_submodule(other, StoredEmbedding(stored, model.get_submodule(other)))
        parts = {NUMBERS: made.numbers, SCALE: made.scale, SHIFT: made.shift}
        return {f"{head}.{part}": tensor for part, tensor in parts.items() if tensor is not None}


def quantize(weight: Tensor, scheme: Scheme, report: Report = lambda: None) -> QuantizedWeight:
    """`nearest` in parts, to need little memory beside the result."""
    outs, ins = weight.shape
    shape, dtype = scheme.numbers_of(outs, ins)
    numbers, scales, shifts = torch.empty(shape, dtype=dtype), [], []
    rows = max(1, CHUNK // ins)
    for start in range(0, outs, rows):
        part = nearest(weight[start : start + rows], scheme)
        numbers[start : start + rows] = part.numbers
        scales.append(part.scale)
        shifts += [] if part.shift is None else [part.shift]
        report()
    return QuantizedWeight(scheme, numbers, _together(scales), _together(shifts) if shifts else None, ins)


def _together(parts: Sequence[Tensor]) -> Tensor:
    widest = max((part.dtype for part in parts), key=lambda dtype: dtype.itemsize)
    return torch.cat([part.to(widest) for part in parts])


def _shared(model: Any, name: str) -> list[str]:
    """The modules that have the same weights as one of this name."""
    key, ties = f"{name}.weight", model.all_tied_weights_keys
    source = ties.get(key, key)
    keys = {source, *(target for target, other in ties.items() if other == source)} - {key}
    return sorted(other.removesuffix(".weight") for other in keys)


def apart(files: Sequence[str | Path], one: str, other: str) -> bool:
    """Whether the files have two tensors of these names with different content."""
    found: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            names = {one, other}.intersection(opened.keys())
            found |= {name: opened.get_tensor(name) for name in names}
    return len(found) == 2 and not torch.equal(found[one], found[other])
