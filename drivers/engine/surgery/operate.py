"""The whole operation on a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...ops.linear import PackedLinear
from ...ops.quantized import Scheme
from ...ops.quantized_linear import QuantizedLinear
from ...ops.table import OpTable, Spec
from ..experts import fit_experts
from ..memory import device_of
from ..quantized.library import stored
from ..quantized.stored import StoredEmbedding, StoredLinear
from .merged import LAYERS, Make, PackedEmbedding, SingleLinear, Weight, merge, pack, weight_of
from .units import fused_norm, fused_unit


TRIAL_IDS = 8


@dataclass
class Report:
    """How many modules were replaced, or are served by an op from now on."""

    merged: int = 0
    packed: int = 0
    norms: int = 0
    units: int = 0
    experts: int = 0


def operate(model: nn.Module, ops: OpTable, moved: Callable[[], None] = lambda: None) -> Report:
    """Replace what can be replaced, in place; weights are moved, one module after the other, never kept twice.

    The output layer, which is the largest, goes first, while there is least beside it. `moved` is called after each.
    """
    report = Report()
    first = next(iter(model.parameters()))
    spec: Spec = {"device": first.device.type, "dtype": str(first.dtype).removeprefix("torch.")}
    make = _maker(ops, spec, {layer.scheme.kind: layer.activations for _, layer in stored(model)})
    tied = _tied(model)
    for linear, embeddings in tied.items():
        report.packed += _pack_tied(model, linear, embeddings, make)
        moved()
    heads = {id(model.get_submodule(name)) for name in tied}
    report.packed += pack(model, make, heads)
    moved()
    for module in _parents(model):
        report.merged += merge(module, make)
        moved()
    for module in _parents(model):
        report.packed += pack(module, make, heads)
        moved()
    makers: tuple[tuple[str, Callable[..., nn.Module | None]], ...] = (("norms", fused_norm), ("units", fused_unit))
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            for count, maker in makers:
                made = maker(child, ops, spec)
                if made is not None:
                    setattr(module, name, made)
                    setattr(report, count, getattr(report, count) + 1)
                    break
    report.experts = fit_experts(model, ops)
    return report


def _maker(ops: OpTable, spec: Spec, activations: Mapping[str, str]) -> Make:
    """Packs with the op that the weights want; `activations` by the kind of a scheme."""
    plain: Make = ops.choose("linear", spec).implementation.call
    dtype = getattr(torch, spec["dtype"])

    def make(weights: Sequence[Weight], bias: Tensor | None) -> PackedLinear:
        first = weights[0]
        if isinstance(first, Tensor):
            return plain(weights, bias)
        rounded = activations[first.scheme.kind]
        chosen = ops.choose(*_quantized_op(first.scheme, rounded, spec))
        packed: PackedLinear = chosen.implementation.call(weights, bias, dtype, rounded)
        return packed

    return make


def _quantized_op(scheme: Scheme, activations: str, spec: Spec) -> tuple[str, Spec]:
    return "quantized_linear", {**spec, **asdict(scheme), "activations": activations}


def linear_op(layer: PackedLinear, spec: Spec) -> tuple[str, Spec]:
    """The op that made a packed layer, and the case that it was asked for."""
    if isinstance(layer, QuantizedLinear):
        return _quantized_op(layer.scheme, layer.activations, spec)
    return "linear", spec


def _parents(model: nn.Module) -> list[nn.Module]:
    """The modules that have children. A list of all would keep the weights of those that are replaced meanwhile."""
    return [module for module in model.modules() if next(module.children(), None) is not None]


def _tied(model: nn.Module) -> dict[str, list[str]]:
    """Linear layers to the embeddings that have the same weights, all by their names."""
    named = list(model.named_modules())
    found = {id(_shared(part)): name for name, part in named if type(part) in LAYERS}
    tied: dict[str, list[str]] = {}
    for name, part in named:
        if isinstance(part, nn.Embedding | StoredEmbedding) and id(_shared(part)) in found:
            tied.setdefault(found[id(_shared(part))], []).append(name)
    return tied


def _shared(part: nn.Module) -> object:
    """What two modules have in common that have the same weights."""
    if isinstance(part, StoredEmbedding):
        return part.head
    return part if isinstance(part, StoredLinear) else part.weight


def _first_rows(embedding: Any, device: torch.device) -> Tensor:
    with torch.inference_mode():
        rows: Tensor = embedding(torch.arange(min(TRIAL_IDS, embedding.num_embeddings), device=device))
        return rows


def _pack_tied(model: nn.Module, linear: str, embeddings: Sequence[str], make: Make) -> int:
    """Pack an output layer when its embeddings can read the packed weights; else all stay as they are."""
    head = model.get_submodule(linear)
    assert isinstance(head, LAYERS)
    wanted = {name: _first_rows(model.get_submodule(name), device_of(head)) for name in embeddings}
    packed = make([weight_of(head)], head.bias)
    if not packed.quick_rows:
        return 0
    made = {}
    for name in embeddings:
        original = model.get_submodule(name)
        assert isinstance(original, nn.Embedding | StoredEmbedding)
        made[name] = PackedEmbedding(packed, original)
        if not torch.equal(_first_rows(made[name], device_of(head)), wanted[name]):
            return 0
    for name, module in {linear: SingleLinear(packed), **made}.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module)
    return 1
