"""Whole decoder layers, whose ops are asked for once and then repeated.

For layers that norm, attend on pages, add, norm, go through a gated unit and add (Llama's order, which most have), made
of nothing but parts that were replaced already, all served by whoever serves the op `replay`. A layer gets it when it
answered exactly as the original did in a run of the model; called in any other way it hands over to the original.

Where the products behind a norm multiply inputs of e4m3, the norm hands them over as such, in one op: what is between
is not written and read again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmos.syscalls.errors import LlmosError

from ...ops.float8 import Float8Rows
from ...ops.linear import PackedLinear
from ...ops.replay import Plain, Replay
from ...ops.table import OpTable, Spec
from ..attention import Layer
from .attention import FusedAttention, put_in_place
from .merged import MergedLinear, SingleLinear
from .operate import linear_op
from .units import UNITS, FusedNorm, FusedUnit

OPS: Sequence[str] = (
    "add", "rms_norm", "add_rms_norm", "rope_write", "lora_shrink", "lora_expand", *UNITS
)  # fmt: skip
"""What the parts of a layer, and adapters of it, may call; attention is asked for with its widths, and linear layers
with what their weights are."""
PARTS = (FusedAttention, FusedNorm, FusedUnit, MergedLinear, SingleLinear, PackedLinear)


class FusedLayer(nn.Module):
    """Stands for `inner`, whose children it shares. `narrow`: norms round their answers for products that want it."""

    inner: Any

    def __init__(self, inner: nn.Module, ops: OpTable, spec: Spec, narrow: bool = False) -> None:
        super().__init__()
        self.__dict__["_modules"] = inner._modules
        self.__dict__["inner"] = inner
        self._make: Callable[[], Replay] = ops.choose("replay", spec).implementation.call
        self._replay: Replay = self._make()
        self._layer: Layer | None = None
        self._add: Callable[..., Tensor] = ops.choose("add", spec).implementation.call
        self._add_norm: Callable[..., tuple[Tensor, Tensor]] = ops.choose("add_rms_norm", spec).implementation.call
        self._narrow = narrow
        self._norm8: Callable[..., Float8Rows] = ops.choose("rms_norm_float8", spec).implementation.call
        self._add_norm8: Callable[..., tuple[Float8Rows, Tensor]]
        self._add_norm8 = ops.choose("add_rms_norm_float8", spec).implementation.call

    def forward(self, hidden_states: Tensor, *rest: Any, **options: Any) -> Tensor:
        """hidden_states [1, T, H] to [1, T, H]."""
        inner = self.inner
        layer: Layer | None = None if rest else inner.self_attn.paged_layer(options)
        if layer is None:
            answer: Tensor = inner(hidden_states, *rest, **options)
            return answer
        if layer is not self._layer:  # the model was given other pages
            self._layer, self._replay = layer, self._make()
        step = layer.step.tensors
        assert step is not None
        inputs = step.with_angles(options["position_embeddings"])
        return self._replay(hidden_states, inputs, layer.step.variant, lambda: self._run(hidden_states, options))

    def _run(self, hidden_states: Tensor, options: Mapping[str, Any]) -> Tensor:
        inner = self.inner
        before, between = inner.input_layernorm, inner.post_attention_layernorm
        narrow = self._narrow and takes_float8(inner.self_attn, "q_proj")
        normed = self._norm8(hidden_states, *about(before)) if narrow else before(hidden_states)
        attended, _ = inner.self_attn(normed, **options)
        narrow = self._narrow and takes_float8(inner.mlp, "gate_proj")
        normed, total = (self._add_norm8 if narrow else self._add_norm)(attended, hidden_states, *about(between))
        return self._add(inner.mlp(normed), total)


def about(norm: FusedNorm) -> tuple[Tensor, float, bool, bool]:
    """What its op is told beside the states."""
    return norm.weight, norm.eps, norm.unit_offset, norm.round_first


def takes_float8(holder: nn.Module, lead: str) -> bool:
    """Whether the product that the child `lead` leads takes inputs of e4m3; not while adapters read them, too."""
    part = getattr(holder, lead, None)
    return type(part) is MergedLinear and part.takes_float8


def fuse_layers(model: nn.Module, ops: OpTable, run: Callable[[], Any]) -> int:
    """Replace the decoder layers of a model on pages that pass the trial; returns how many.

    `run` takes some tokens through the model.
    """
    first = next(iter(model.parameters()))
    spec: Spec = {"device": first.device.type, "dtype": str(first.dtype).removeprefix("torch.")}
    found: dict[int, FusedLayer] = {}
    differ: set[int] = set()

    def compare(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], answer: Any) -> None:
        named: Any = module
        able = takes_float8(named.self_attn, "q_proj") or takes_float8(named.mlp, "gate_proj")
        for made in (FusedLayer(module, ops, spec, narrow) for narrow in ((True, False) if able else (False,))):
            if _answers_as(made, arguments, options, answer):
                found[id(module)] = made
                return
        differ.add(id(module))

    candidates = [module for module in model.modules() if _looks_right(module) and _served_alike(module, ops, spec)]
    hooks = [module.register_forward_hook(compare, with_kwargs=True) for module in candidates]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    alike = {number: made for number, made in found.items() if number not in differ}
    put_in_place(model, alike)
    return len(alike)


def _answers_as(made: FusedLayer, arguments: tuple[Any, ...], options: Mapping[str, Any], answer: Any) -> bool:
    try:
        found = made(*arguments, **options)
    except LlmosError:
        return False
    return isinstance(answer, Tensor) and torch.equal(found, answer)


def _looks_right(module: nn.Module) -> bool:
    kinds = {
        "input_layernorm": FusedNorm, "self_attn": FusedAttention, "post_attention_layernorm": FusedNorm,
        "mlp": FusedUnit,
    }  # fmt: skip
    if dict.fromkeys(name for name, _ in module.named_children()) != dict.fromkeys(kinds):
        return False
    parts = [part for part in module.modules() if part is not module]
    right = all(type(getattr(module, name)) is kind for name, kind in kinds.items())
    return right and all(isinstance(part, PARTS) for part in parts)


def _served_alike(module: nn.Module, ops: OpTable, spec: Spec) -> bool:
    """Whether all that runs in the layer may run together: what is carried out later must not be mixed with what is
    carried out at once, so either nothing is replayed or one provider serves all of it."""
    attention: Any = module.self_attn
    widths = attention.widths
    if widths is None:
        return False
    replay = ops.choose("replay", spec).implementation
    asked = [(op, spec) for op in OPS] + [("paged_attention", {**spec, **widths})]
    asked += [linear_op(part, spec) for part in module.modules() if isinstance(part, PackedLinear)]
    chosen = [ops.choose(op, case) for op, case in asked]
    return replay.call is Plain or {each.implementation.name for each in chosen} == {replay.name}
