"""LoRA adapters added to the weights of their base, so that the result needs none.

Which adapters there are and what their tensors mean is that of serving them (`engine.lora.weights`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from llmos.syscalls.errors import BadModel

from ..contract import ModelSource, ProgressSink
from ..engine import checkpoint
from ..engine.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from ..engine.lora.weights import LoraWeights, interpret
from . import merging, shards
from .shards import Shards, Tensors


@dataclass(frozen=True)
class Adapter:
    """An adapter's tensors; its layers keep their weights [inputs, outputs] where it is `transposed`."""

    path: str
    weights: LoraWeights
    transposed: bool


def into_base(
    sources: Sequence[ModelSource], weights: Sequence[float], folder: Path, progress: ProgressSink
) -> Mapping[str, Any]:
    """Write the base, `sources[0]`, with each adapter added as often as its weight says.

    Raises:
        BadModel: an adapter that changes a layer which the base has not, or has in another shape.
        NotSupported: an adapter of a kind that is not served either.
    """
    read = [_read(source) for source in sources[1:]]
    with shards.opened(sources[0]) as base:
        placed = [_placed(base, adapter) for adapter in read]
        shards.copy_rest(sources[0], folder, progress)
        out = Shards(folder)
        for done, name in enumerate(base):
            progress(done, len(base), "tensors", "merge")
            tensor = base.read(name)
            dtype = tensor.dtype
            for adapter, targets, weight in zip(read, placed, weights, strict=True):
                if name in targets:
                    tensor = _added(tensor, adapter, targets[name], weight)
            out.add(name, tensor.to(dtype))
        out.close()
    return {"metrics": {"method": "adapter", "layers": sum(len(targets) for targets in placed)}}


def _read(source: ModelSource) -> Adapter:
    config = checkpoint.read_json(source, ADAPTER_CONFIG)
    with shards.opened(source, checkpoint.check_file(source, ADAPTER_WEIGHTS)) as tensors:
        whole = {name: tensors.read(name).clone() for name in tensors}
    weights = interpret(whole, config, source.path, ADAPTER_WEIGHTS)
    return Adapter(source.path, weights, bool(config.get("fan_in_fan_out")))


def _placed(base: Tensors, adapter: Adapter) -> dict[str, str]:
    """The target of each tensor of the base that the adapter changes. Raises BadModel."""
    found: dict[str, str] = {}
    for target, wanted in _shapes(adapter).items():
        name = base.weight_of(target)
        if not name or base.shape(name) != wanted:
            has = f"has {name} of the shape {list(base.shape(name))}" if name else "has no such layer"
            why = f"{adapter.path} changes {target} of the shape {list(wanted)}, and {base.source.path} {has}"
            raise BadModel(f"{why}; merge it into the base that it was trained on", file=ADAPTER_WEIGHTS, why=why)
        found[name] = target
    return found


def _shapes(adapter: Adapter) -> dict[str, tuple[int, ...]]:
    """Of each target, the shape that its weight has in the base."""
    shapes: dict[str, tuple[int, ...]] = {target: tuple(t.shape) for target, t in adapter.weights.copies.items()}
    for target, pair in adapter.weights.pairs.items():
        sizes = (len(pair.b), pair.a.shape[1])
        shapes[target] = sizes[::-1] if adapter.transposed else sizes
    return shapes


def _added(tensor: Tensor, adapter: Adapter, target: str, weight: float) -> Tensor:
    tensor = adapter.weights.copies.get(target, tensor)
    pair = adapter.weights.pairs.get(target)
    if pair is None:
        return tensor
    return merging.low_rank(tensor, pair.a, pair.b, weight * pair.scale, adapter.transposed)
