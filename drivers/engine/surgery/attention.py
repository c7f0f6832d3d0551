"""Attention in four calls: one product for queries, keys and values, rotation with the write into pages, attention,
and the output product.

Only for layers on pages, whose queries, keys and values are merged. A layer gets it when it answered as the original
did in a run of the model; called in any other way it hands over to the original.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmos.syscalls.errors import LlmosError

from ...ops.float8 import Float8Rows
from ...ops.table import OpTable, Spec
from ..attention import ATTRIBUTE, Layer, Meaning, kept_as
from .merged import MergedLinear

TOLERANCE = {torch.float32: 1e-5}
HALF_TOLERANCE = 2e-2
"""Largest difference as a share of the largest value."""


@dataclass(frozen=True)
class Seen:
    """One call of an attention module and what it answered."""

    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    answer: Tensor


class FusedAttention(nn.Module):
    """Stands for `inner`, whose children it shares: they go by the names they had, and are replaced in both at once."""

    inner: Any

    def __init__(self, inner: nn.Module, meaning: Meaning, rope_write: Callable[..., None]) -> None:
        super().__init__()
        self.__dict__["_modules"] = inner._modules
        self.__dict__["inner"] = inner
        self._meaning = meaning
        self._rope_write = rope_write

    def forward(self, hidden_states: Tensor | Float8Rows, *rest: Any, **options: Any) -> tuple[Tensor, None]:
        """hidden_states [1, T, H] to ([1, T, H], None), as the library's decoder layers expect; e4m3 on pages where the
        product takes it."""
        inner = self.inner
        layer = self.paged_layer(options)
        if layer is None:
            answer: tuple[Tensor, None] = inner(hidden_states, *rest, **options)
            return answer
        q, k, v = self._heads(inner.q_proj.whole(hidden_states)[0], layer)
        cos, sin = options["position_embeddings"]
        step = layer.step.tensors
        assert step is not None
        self._rope_write(q, k, cos[0], sin[0], v, layer.keys, layer.values, step.slots, **layer.scales)
        attended = layer.attend_to(q, self._meaning)
        return inner.o_proj(attended.flatten(1)[None]), None

    def paged_layer(self, options: Mapping[str, Any]) -> Layer | None:
        """Its pages, in a step and for a call with these options, if it answers such a call itself."""
        layer = self.inner.__dict__.get(ATTRIBUTE)
        if type(layer) is not Layer or layer.step.tensors is None or options.get("position_embeddings") is None:
            return None
        return layer if hasattr(self.inner.q_proj, "whole") else None

    @property
    def widths(self) -> Mapping[str, Any] | None:
        """Heads, widths and dtype of its pages, as its op was asked for them; None away from pages."""
        layer = self.inner.__dict__.get(ATTRIBUTE)
        if type(layer) is not Layer:
            return None
        heads, widths = layer.keys.shape[1], (layer.keys.shape[3], layer.values.shape[3])
        kind = kept_as(layer.keys, layer.scales)
        return {"heads": heads, "key_width": widths[0], "value_width": widths[1], **kind}

    def _heads(self, qkv: Tensor, layer: Layer) -> tuple[Tensor, Tensor, Tensor]:
        """Views [T, heads, width] of the product [T, N]; normed heads where the model norms them."""
        width = layer.keys.shape[3]
        q, k, v = (part.view(part.shape[0], -1, width) for part in torch.split(qkv, self._sizes(), dim=1))
        if hasattr(self.inner, "q_norm"):
            q, k = self.inner.q_norm(q), self.inner.k_norm(k)
        return q, k, v

    def _sizes(self) -> list[int]:
        return [part.out_features for part in (self.inner.q_proj, self.inner.k_proj, self.inner.v_proj)]


def fuse_attention(
    model: nn.Module, modules: Sequence[nn.Module], meanings: Sequence[Meaning], ops: OpTable, run: Callable[[], Any]
) -> int:
    """Replace the attention modules of a model on pages that pass the trial; returns how many.

    `run` takes some tokens through the model; it is done again with the same step while candidates are tried.
    """
    first = next(iter(model.parameters()))
    spec: Spec = {"device": first.device.type, "dtype": str(first.dtype).removeprefix("torch.")}
    paged = [module.__dict__.get(ATTRIBUTE) for module in modules]
    kinds = [kept_as(layer.keys, layer.scales) for layer in paged if isinstance(layer, Layer)]
    rope_write = ops.choose("rope_write", {**spec, **(kinds[0] if kinds else {})}).implementation.call
    found = {id(module): meaning for module, meaning in zip(modules, meanings, strict=True)}
    candidates: dict[int, FusedAttention] = {}

    def compare(module: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any], answer: Any) -> None:
        made = FusedAttention(module, found[id(module)], rope_write)
        if _answers_as(made, Seen(arguments, options, answer[0])):
            candidates[id(module)] = made

    hooks = [
        module.register_forward_hook(compare, with_kwargs=True)
        for module in modules
        if _looks_right(module) and sum(module is other for other in modules) == 1
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    put_in_place(model, candidates)
    return len(candidates)


def put_in_place(model: nn.Module, made: Mapping[int, nn.Module]) -> None:
    """Replace the modules of these ids wherever they are children."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in made:
                setattr(parent, name, made[id(child)])


def unfuse_attention(model: nn.Module) -> None:
    """Put the original modules back."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FusedAttention):
                setattr(parent, name, child.inner)


def _looks_right(module: nn.Module) -> bool:
    parts = [getattr(module, name, None) for name in ("q_proj", "k_proj", "v_proj")]
    return all(type(part) is MergedLinear for part in parts) and hasattr(module, "o_proj")


def _answers_as(made: FusedAttention, seen: Seen) -> bool:
    try:
        answer, _ = made(*seen.arguments, **seen.options)
    except (TypeError, RuntimeError, ValueError, AttributeError, IndexError, LlmosError):
        return False
    if answer.shape != seen.answer.shape:
        return False
    allowed = TOLERANCE.get(answer.dtype, HALF_TOLERANCE) * seen.answer.abs().max().item()
    return bool((answer - seen.answer).abs().max() <= allowed)
