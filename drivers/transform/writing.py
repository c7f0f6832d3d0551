"""A model whose linear layers are quantized, written as it is made: numbers and scales in place of weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..contract import ProgressSink
from ..engine.checkpoint import CONFIG
from ..engine.quantized.folder import KEY, Quantized
from ..engine.quantized.stored import NUMBERS, SCALE, SHIFT
from ..ops.quantized import QuantizedWeight, Scheme
from . import shards
from .shards import Shards, Tensors


class Writing:
    """Takes quantized layers one by one; all other tensors follow from the source at the end.

    Attributes:
        schemes: of the layers that were taken, by name.
        wide: bytes of the other tensors of two and more dimensions, by name, once it is closed.
    """

    def __init__(self, folder: Path, source: Tensors, module: nn.Module) -> None:
        self._folder, self._source, self._out = folder, source, Shards(folder)
        self._shared = _shared(module)
        self._done: set[str] = set()
        self._changed: dict[str, Tensor] = {}
        self.schemes: dict[str, Scheme] = {}
        self.wide: dict[str, int] = {}

    @property
    def bytes(self) -> int:
        """What was written."""
        return self._out.bytes

    def stored(self, name: str) -> list[str]:
        """The tensors of the source that are the weights of a layer, and of what shares them; none where it is stored
        under other names."""
        found = {self._source.weight_of(other) for other in self._shared.get(name, [name])}
        return sorted(found - {""})

    def bytes_of(self, name: str) -> int:
        """What a layer's weights take in the source."""
        return sum(self._source.read(key).nbytes for key in self.stored(name))

    def add(self, name: str, weight: QuantizedWeight) -> None:
        """Take a quantized layer. Raises OSError."""
        stem = (self._source.weight_of(name) or f"{name}.weight").removesuffix(".weight")
        for part, tensor in ((NUMBERS, weight.numbers), (SCALE, weight.scale), (SHIFT, weight.shift)):
            if tensor is not None:
                self._out.add(f"{stem}.{part}", tensor)
        self._source.trim()  # what was worked with is free now, in pieces that the heap keeps
        self._done.update(self.stored(name))
        self.schemes[name] = weight.scheme

    def change(self, path: str, parts: Iterable[str], module: Any) -> None:
        """Parameters of a module are not those of the source any more."""
        for part in parts:
            stem = self._source.weight_of(path).removesuffix("weight")
            self._changed[f"{stem}{part}"] = getattr(module, part).data

    def close(self, activations: str, progress: ProgressSink) -> None:
        """Write the rest. Raises OSError."""
        for done, name in enumerate(self._source):
            progress(done, len(self._source), "tensors", "write")
            if name not in self._done:
                changed = self._changed.get(name)
                tensor = self._source.read(name) if changed is None else changed
                self._out.add(name, tensor)
                if tensor.ndim > 1:
                    self.wide[name] = tensor.nbytes
        self._out.close()
        shards.copy_rest(self._source.source, self._folder, progress, [CONFIG])
        config = shards.config_of(self._source.source)
        shards.write_config(self._folder, {**config, KEY: Quantized(self.schemes, activations).as_config()})


def _shared(module: nn.Module) -> dict[str, list[str]]:
    """Modules by the name of one of them, that have one and the same weight."""
    groups: dict[int, list[str]] = {}
    for name, part in module.named_parameters(remove_duplicate=False):
        if name.endswith(".weight"):
            groups.setdefault(id(part), []).append(name.removesuffix(".weight"))
    return {name: names for names in groups.values() for name in names}
