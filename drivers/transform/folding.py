"""Dividing what a part of a layer answers by factors, so that the linear layers behind it can be multiplied by them.

Which part that is, is found by running the layer: a norm whose answer is the very tensor that they were given, or the
linear layer whose outputs stand for their inputs one by one. Whether it holds is tried, never assumed: a layer that
answers otherwise afterwards (because somebody else reads the norm too) is put back as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .calibration import Layer, inputs_of

BEFORE = {"down_proj": "up_proj", "w2": "w3", "o_proj": "v_proj"}
"""Linear layers by those before them in the same module, where outputs are inputs times something or averages of it."""
LARGEST_CHANGE = 0.02
"""How far a layer's answer may be from its answer before, of its norm: rounding to a narrow dtype."""


@dataclass(frozen=True)
class Source:
    """What can be divided: `weight` (and `bias`) along its first dimension. `offset` is what a norm adds to it."""

    path: str
    module: Any
    offset: float = 0.0

    def divided(self, factors: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The parameters after division, and by what they really are divided, being of a narrow dtype."""
        weight: Tensor = self.module.weight
        shape = (-1, *[1] * (weight.ndim - 1))
        whole = weight.float() + self.offset
        parts = {"weight": (whole / factors.view(shape) - self.offset).to(weight.dtype)}
        if getattr(self.module, "bias", None) is not None:
            parts["bias"] = (self.module.bias.float() / factors).to(weight.dtype)
        if weight.ndim > 1 or "bias" in parts:
            return parts, factors
        now = parts["weight"].float() + self.offset
        return parts, torch.where(now == 0, factors, whole / now)


def sources(layer: Layer, groups: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], Source]:
    """What comes before each group of linear layers with one input, where something that can be divided does."""
    own = {name: layer.module.get_submodule(name.removeprefix(f"{layer.path}.")) for names in groups for name in names}
    answers: dict[int, tuple[str, nn.Module]] = {}
    kept: list[Any] = []  # so that no id is used twice meanwhile

    def note(path: str) -> Any:
        def hook(module: nn.Module, _args: Any, answer: Any) -> None:
            kept.append(answer)
            answers.setdefault(id(answer), (path, module))

        return hook

    norms = [(path, part) for path, part in layer.module.named_modules() if _is_norm(part)]
    handles = [part.register_forward_hook(note(f"{layer.path}.{path}")) for path, part in norms]
    with inputs_of(own) as given:
        next(iter(layer.run()))
    for handle in handles:
        handle.remove()
    found = {}
    for names in groups:
        path, norm = answers.get(id(given[names[0]]), ("", None))
        source = _linear(own[names[0]], names, layer) if norm is None else _norm(path, norm)
        if source is not None:
            found[names] = source
    return found


def fold(layer: Layer, source: Source, names: Sequence[str], factors: Tensor) -> Tensor | None:
    """Divide `source` and multiply the inputs of the linear layers; by what they were multiplied [K].

    None, and everything as it was, where the layer would answer otherwise.
    """
    linears: list[Any] = [layer.module.get_submodule(name.removeprefix(f"{layer.path}.")) for name in names]
    with torch.inference_mode():
        before = _first(next(iter(layer.run())))
        parts, real = source.divided(factors)
        old = {(source.module, name): getattr(source.module, name).data for name in parts}
        old |= {(linear, "weight"): linear.weight.data for linear in linears}
        for name, tensor in parts.items():
            getattr(source.module, name).data = tensor
        for linear in linears:
            linear.weight.data = (linear.weight.float() * real).to(linear.weight.dtype)
        after = _first(next(iter(layer.run())))
        change = float((after.float() - before.float()).norm() / before.float().norm().clamp(min=1e-12))
    if change <= LARGEST_CHANGE:
        return real
    for (module, name), tensor in old.items():
        getattr(module, name).data = tensor
    return None


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.ndim == 1 and not list(module.children())


def _norm(path: str, norm: nn.Module) -> Source | None:
    """A norm that multiplies by its weight, or by 1 more than it."""
    weight = norm.weight
    assert isinstance(weight, Tensor)
    x = torch.linspace(-2, 2, weight.numel(), dtype=weight.dtype)[None].sin()
    return next((source for offset in (0.0, 1.0) if _divides(source := Source(path, norm, offset), x)), None)


def _divides(source: Source, x: Tensor) -> bool:
    old = {name: part.data for name, part in source.module.named_parameters()}
    with torch.inference_mode():
        before = source.module(x).float()
        parts, real = source.divided(torch.full((x.shape[-1],), 2.0))
        for name, tensor in parts.items():
            getattr(source.module, name).data = tensor
        after = source.module(x).float() * real
    for name, tensor in old.items():
        getattr(source.module, name).data = tensor
    return bool((after - before).norm() <= LARGEST_CHANGE * before.norm())


def _linear(linear: nn.Module, names: Sequence[str], layer: Layer) -> Source | None:
    parent, _, last = names[0].rpartition(".")
    path = f"{parent}.{BEFORE.get(last, '')}"
    modules: Mapping[str, nn.Module] = dict(layer.module.named_modules())
    before = modules.get(path.removeprefix(f"{layer.path}."))
    if not isinstance(before, nn.Linear) or not isinstance(linear, nn.Linear) or len(names) > 1:
        return None
    return Source(path, before) if before.out_features == linear.in_features else None


def _first(answer: Any) -> Tensor:
    found: Tensor = answer[0] if isinstance(answer, tuple) else answer
    return found
