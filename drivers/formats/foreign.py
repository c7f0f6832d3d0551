"""Folders whose weights another project quantized, as if we had: which layers keep their numbers, and their tensors.

Layers are repacked where our schemes hold the same weights to the last bit, and dequantized to the model's dtype
otherwise; what is not known is refused with the reason.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import EllipsisType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from llmos.syscalls.errors import BadModel, NotSupported

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

    def parts(self, dtype: torch.dtype) -> dict[str, Part]:
        """All tensors by name, to be read one by one: NAME.numbers, NAME.scale and NAME.shift of layers that keep their
        numbers, NAME.weight in `dtype` of the others, and everything else as it is."""
        taken = {part for layer in self.layers.values() for part in layer.parts}
        left_out = LEFT_OUT.get(self.method)
        whole = (name for name in self.files if name not in taken and not (left_out and left_out(name)))
        found = {name: Part(name, partial(self.files.read, name)) for name in whole}
        for layer in self.layers.values():
            made = Made(layer, dtype)
            found |= {name: Part(name, partial(made.take, name)) for name in made.names}
        return found

    def tensors(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """The same, read."""
        for name, part in self.parts(dtype).items():
            yield name, part[...]


@dataclass(frozen=True)
class Part:
    """A tensor that is read when it is asked for, by `part[...]`, as the library reads slices of files."""

    name: str
    read: Callable[[], Tensor]

    def __getitem__(self, every: EllipsisType) -> Tensor:
        return self.read()


class Made:
    """The tensors of a layer, made at once, and each let go of when it is taken. Threads may take at the same time."""

    def __init__(self, layer: Layer, dtype: torch.dtype) -> None:
        self._layer, self._dtype = layer, dtype
        self._made: dict[str, Tensor] = {}
        self._lock = threading.Lock()
        shift = ("shift",) if layer.scheme is not None and layer.scheme.shift else ()
        parts = ("weight",) if layer.scheme is None else ("numbers", "scale", *shift)
        self.names = [f"{layer.name}.{part}" for part in parts]

    def take(self, name: str) -> Tensor:
        """One of `names`."""
        with self._lock:
            if name not in self._made:
                self._made = dict(stored(self._layer, self._dtype))
            return self._made.pop(name)


def read(path: str, settings: Mapping[str, Any], files: Files) -> Foreign:
    """What a folder is whose `quantization_config` is `settings`; `path` is the model's, for errors.

    Raises:
        NotSupported: another method, or a layout of it that is not known.
        BadModel: tensors do not fit one another, or none is quantized.
    """
    method = str(settings.get("quant_method", "unknown"))
    layers = METHODS.get(method)
    if layers is None:
        why = f"the weights are quantized by {method}; read are {', '.join(METHODS)}"
        raise NotSupported(f"{path}: {why}; load the original weights", why=why)
    try:
        found = {layer.name: layer for layer in layers(settings, files)}
    except NotSupported as error:
        raise NotSupported(f"{path}: {error.text}; load the original weights", why=error.text) from error
    if not found:
        why = f"no layer is quantized by {method}, which its configuration names"
        raise BadModel(f"{path}: {why}; remove quantization_config from it", file="config.json", why=why)
    return Foreign(method, found, files)


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
