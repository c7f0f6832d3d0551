"""Layers that several trials go through in one pass: the base's product once for all rows, adapters each for its own.

Rows of a pass are those of the first trial, then those of the second, and so on. What a layer does to the rows of a
trial depends on that trial's weights and its random numbers alone, and so do the gradients that come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.nn import functional


@dataclass
class Pass:
    """Who goes through the layers now.

    Attributes:
        rows: of each trial, in order.
        lengths: tokens of the rows of each trial; they are filled up to the longest.
        layers: by path, the layer of each trial.
        chance: random numbers of each trial.
    """

    rows: Sequence[int] = ()
    lengths: Sequence[int] = ()
    layers: dict[str, list[Any]] = field(default_factory=dict)
    chance: Sequence[torch.Generator] = ()


class Each(nn.Module):
    """Whatever layer trials have of their own: each does with its rows as it would by itself."""

    def __init__(self, under: Pass, path: str) -> None:
        super().__init__()
        self._under, self._path = under, path

    def forward(self, x: Tensor, *args: Any, **more: Any) -> Tensor:
        """x [rows, ..] to [rows, ..]."""
        parts = torch.split(x, list(self._under.rows))
        layers = self._under.layers[self._path]
        return torch.cat([layer(part, *args, **more) for layer, part in zip(layers, parts, strict=True)])


class Grouped(nn.Module):
    """Plain LoRA layers around one layer of the base. Ranks, scales and dropout may differ.

    With as many tokens each, the adapters of all trials are two batched products, of the largest rank: narrower
    matrices are filled up with zeros, which get no gradient.
    """

    def __init__(self, base: nn.Module, under: Pass, path: str) -> None:
        super().__init__()
        self.base = base
        self._under, self._path = under, path

    def forward(self, x: Tensor) -> Tensor:
        """x [rows, .., in] to [rows, .., out], in the dtype of the base's layer."""
        whole: Tensor = self.base(x)
        layers = self._under.layers[self._path]
        first = [layer.lora_A["default"].weight for layer in layers]
        second = [layer.lora_B["default"].weight for layer in layers]
        scales = [float(layer.scaling["default"]) for layer in layers]
        inside = self._dropped(x.to(first[0].dtype), layers)
        outside = whole.to(second[0].dtype)
        if len(set(self._under.rows)) == 1:
            made = _together(outside, inside, first, second, scales)
        else:
            parts = zip(*(torch.split(each, list(self._under.rows)) for each in (outside, inside)), strict=True)
            every = zip(parts, first, second, scales, strict=True)
            made = torch.cat([_one(out, given, a, b, scale) for (out, given), a, b, scale in every])
        return made.view_as(whole).to(whole.dtype)

    def _dropped(self, x: Tensor, layers: Sequence[Any]) -> Tensor:
        """x with dropout as each trial has it: torch's own, which takes no generator."""
        shares = [getattr(layer.lora_dropout["default"], "p", 0.0) for layer in layers]
        if not self.training or not any(shares):
            return x
        parts = torch.split(x, list(self._under.rows))
        every = zip(parts, self._under.lengths, shares, self._under.chance, strict=True)
        return torch.cat([_noisy(*each) if each[2] else each[0] for each in every])


def _noisy(x: Tensor, length: int, share: float, chance: torch.Generator) -> Tensor:
    """x [rows, tokens, in] with as many numbers drawn as rows that are not filled up need."""
    noise = torch.empty_like(x[:, :length]).bernoulli_(1 - share, generator=chance).div_(1 - share)
    return torch.cat([x[:, :length] * noise, x[:, length:]], dim=1)


def _one(out: Tensor, x: Tensor, first: Tensor, second: Tensor, scale: float) -> Tensor:
    inner = functional.linear(x, first) * scale
    return torch.addmm(out.flatten(0, -2), inner.flatten(0, -2), second.t()).view_as(out)


def _together(
    out: Tensor, x: Tensor, first: Sequence[Tensor], second: Sequence[Tensor], scales: Sequence[float]
) -> Tensor:
    """The same for all at once; out [n * rows, .., out], x [n * rows, .., in]."""
    count, rank = len(first), max(len(each) for each in first)
    down = torch.stack([functional.pad(a, (0, 0, 0, rank - len(a))) if len(a) < rank else a for a in first])
    up = torch.stack([functional.pad(b, (0, rank - b.shape[1])) if b.shape[1] < rank else b for b in second])
    inner = torch.bmm(x.reshape(count, -1, x.shape[-1]), down.mT)
    if len(set(scales)) == 1:
        inner = inner * scales[0]
    else:
        inner = inner * torch.tensor(scales, dtype=inner.dtype, device=inner.device)[:, None, None]
    return torch.baddbmm(out.reshape(count, -1, out.shape[-1]), inner, up.mT)


def plain(layer: nn.Module) -> bool:
    """Whether a layer is LoRA that `Grouped` computes."""
    held: Any = layer
    return (
        isinstance(layer, Linear) and not held.lora_variant and list(held.lora_A) == ["default"]
        and held.lora_A["default"].bias is None and held.lora_B["default"].bias is None
    )  # fmt: skip
