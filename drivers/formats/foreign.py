"""Folders whose weights another project quantized, as if we had: which layers keep their numbers, and their tensors.

Layers are repacked where our schemes hold the same weights to the last bit, and dequantized to the model's dtype
otherwise; what is not known is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from llmos.syscalls.errors import NotSupported

from ..ops.quantized import QuantizedWeight, Scheme
from . import awq, bitsandbytes, compressed, gptq
from .layer import Files, Layer

Layers = Callable[[Mapping[str, Any], Files], Iterator[Layer]]
METHODS: Mapping[str, Layers] = {
    "gptq": gptq.layers, "awq": awq.layers, "compressed-tensors": compressed.layers,
    "bitsandbytes": bitsandbytes.layers,
}  # fmt: skip
LEFT_OUT: Mapping[str, Callable[[str], bool]] = {"compressed-tensors": compressed.left_out}
NOT_WANTED = "no linear layer of the model"


class SafeFiles:
    """The tensors of safetensors files: `placed` is the file of each. They are mapped, not copied."""

    def __init__(self, placed: Mapping[str, str], folder: str) -> None:
        self._placed = placed
        self._open: dict[str, Any] = {
            file: safe_open(f"{folder}/{file}", framework="pt") for file in sorted(set(placed.values()))
        }

    def __contains__(self, name: object) -> bool:
        return name in self._placed

    def __iter__(self) -> Iterator[str]:
        return iter(self._placed)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return tuple(self._open[self._placed[name]].get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """A tensor; not to be written to."""
        tensor: Tensor = self._open[self._placed[name]].get_tensor(name)
        return tensor


@dataclass(frozen=True)
class Foreign:
    """A checkpoint that another project quantized.

    Attributes:
        method: whose, as `quant_method` calls it.
        layers: its quantized layers by name; those without a scheme are dequantized.
    """

    method: str
    layers: Mapping[str, Layer]
    files: Files

    @property
    def modules(self) -> dict[str, Scheme]:
        """The layers that keep their numbers."""
        return {name: layer.scheme for name, layer in self.layers.items() if layer.scheme is not None}

    @property
    def widened(self) -> dict[str, str]:
        """The layers that are dequantized, with the reason."""
        return {name: layer.why for name, layer in self.layers.items() if layer.scheme is None}

    def only(self, wanted: Callable[[str], bool]) -> Foreign:
        """The same with all other layers dequantized: those that are no linear layers of the model."""
        kept = {
            name: layer if layer.scheme is None or wanted(name) else _widened(layer)
            for name, layer in self.layers.items()
        }
        return replace(self, layers=kept)

    def tensors(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """All tensors, one at a time: NAME.numbers, NAME.scale and NAME.shift of layers that keep their numbers,
        NAME.weight in `dtype` of the others, and everything else as it is."""
        parts = {part for layer in self.layers.values() for part in layer.parts}
        left_out = LEFT_OUT.get(self.method)
        for name in self.files:
            if name not in parts and not (left_out and left_out(name)):
                yield name, self.files.read(name)
        for layer in self.layers.values():
            yield from stored(layer, dtype)


def read(path: str, settings: Mapping[str, Any], files: Files) -> Foreign:
    """What a folder is whose `quantization_config` is `settings`; `path` is the model's, for errors.

    Raises:
        NotSupported: another method, or a layout of it that is not known.
        BadModel: tensors do not fit one another.
    """
    method = str(settings.get("quant_method", "unknown"))
    layers = METHODS.get(method)
    if layers is None:
        why = f"the weights are quantized by {method}; read are {', '.join(METHODS)}"
        raise NotSupported(f"{path}: {why}; load the original weights", why=why)
    return Foreign(method, {layer.name: layer for layer in layers(settings, files)}, files)


def stored(layer: Layer, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one layer as they are stored."""
    weight = layer.read()
    if not isinstance(weight, QuantizedWeight):
        yield f"{layer.name}.weight", weight.to(dtype)
        return
    yield f"{layer.name}.numbers", weight.numbers
    yield f"{layer.name}.scale", weight.scale
    if weight.shift is not None:
        yield f"{layer.name}.shift", weight.shift


def _widened(layer: Layer) -> Layer:
    return replace(layer, scheme=None, why=NOT_WANTED, read=layer.wide)
