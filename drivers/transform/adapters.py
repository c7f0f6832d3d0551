"""Adapters of PEFT worked into the weights of their base, so that the result needs none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmos.syscalls.errors import BadModel

from ..contract import ModelSource, ProgressSink
from ..engine import checkpoint
from ..engine.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from . import shards
from .changes import Change, Place, changes_of, check_weight, fits
from .shards import Shards, Tensors


@dataclass(frozen=True)
class Adapter:
    """What an adapter changes."""

    path: str
    changes: Mapping[Place, Change]


def into_base(
    sources: Sequence[ModelSource], weights: Sequence[float], folder: Path, progress: ProgressSink
) -> Mapping[str, Any]:
    """Write the base, `sources[0]`, with each adapter added as often as its weight says.

    Raises:
        BadModel: an adapter that changes a layer which the base has not, or has in another shape.
        NotSupported: an adapter of another kind than those of `changes`, or a weight for one that has none.
    """
    read = [_read(source) for source in sources[1:]]
    for adapter, weight in zip(read, weights, strict=True):
        for change in adapter.changes.values():
            check_weight(change, weight, adapter.path)
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
                    tensor = adapter.changes[targets[name]](tensor, weight)
            out.add(name, tensor.to(dtype))
        out.close()
    return {"metrics": {"method": "adapter", "layers": sum(len(targets) for targets in placed)}}


def _read(source: ModelSource) -> Adapter:
    config = checkpoint.read_json(source, ADAPTER_CONFIG)
    with shards.opened(source, checkpoint.check_file(source, ADAPTER_WEIGHTS)) as tensors:
        whole = {name: tensors.read(name).clone() for name in tensors}
    return Adapter(source.path, changes_of(whole, config, source.path))


def _placed(base: Tensors, adapter: Adapter) -> dict[str, Place]:
    """What each tensor of the base is to the adapter that changes it. Raises BadModel."""
    found: dict[str, Place] = {}
    for place, change in adapter.changes.items():
        layer, part = place
        weight = base.weight_of(layer)
        name = f"{weight.removesuffix('weight')}{part}" if weight else ""
        if weight and name not in base and change.optional:
            continue
        if name not in base or not fits(change, base.shape(name)):
            has = f"has {name} of the shape {list(base.shape(name))}" if name in base else "has no such layer"
            why = f"{adapter.path} changes {layer} of the shape {list(change.shape)}, and {base.source.path} {has}"
            raise BadModel(f"{why}; merge it into the base that it was trained on", file=ADAPTER_WEIGHTS, why=why)
        found[name] = place
    return found
