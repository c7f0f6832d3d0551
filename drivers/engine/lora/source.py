"""Adapters in folders of PEFT layout: is it one, is it whole, what does it hold?"""

from __future__ import annotations

import torch
from safetensors import SafetensorError, safe_open

from llmos.syscalls.errors import BadModel

from ...contract import ModelSource, ProgressSink
from .. import checkpoint, finite, loader
from ..checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, ITEM_BITS, Weights
from .weights import LoraWeights, check_config, interpret


def is_adapter(source: ModelSource) -> bool:
    """Whether the folder is an adapter rather than a model."""
    return checkpoint.find(source, ADAPTER_CONFIG) is not None and checkpoint.find(source, checkpoint.CONFIG) is None


def check(source: ModelSource) -> Weights:
    """The adapter's weight file, checked. Raises BadModel, NotSupported."""
    check_config(checkpoint.read_json(source, ADAPTER_CONFIG), source.path)
    if checkpoint.find(source, ADAPTER_WEIGHTS) is None and checkpoint.find(source, "adapter_model.bin") is not None:
        why = "weights are pickled, which can run code; only safetensors are loaded"
        raise BadModel(f"{source.path}: adapter_model.bin: {why}", file="adapter_model.bin", why=why)
    return checkpoint.check_file(source, ADAPTER_WEIGHTS)


def planned_bytes(source: ModelSource, dtype: torch.dtype | None = None) -> int:
    """Bytes of an adapter in a base of this dtype; in its own where no base is known. Raises BadModel, NotSupported."""
    held = check(source).dtypes
    return sum(size if dtype is None else size * 8 // ITEM_BITS[own] * dtype.itemsize for own, size in held.items())


def read(source: ModelSource, progress: ProgressSink) -> LoraWeights:
    """Read and interpret an adapter. Raises BadModel naming the file, NotSupported."""
    weights, config = check(source), checkpoint.read_json(source, ADAPTER_CONFIG)
    with checkpoint.folder_of(source) as folder:
        finite.check_finite(folder, weights, progress)
        progress(weights.bytes, weights.bytes, "bytes", "build")
        try:
            with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in weights.tensors}
        except (OSError, SafetensorError) as error:
            raise loader.bad_model(source, error, ADAPTER_WEIGHTS) from error
    return interpret(tensors, config, source.path, ADAPTER_WEIGHTS)
