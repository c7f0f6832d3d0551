"""Learned tokens, which stand before every text of a model: prompts, prefixes and p-tuning (arXiv:2104.08691,
2101.00190, 2103.10385), stored as the keys and values that they come to.

A folder that has them is a model's, with `learned_tokens.safetensors` beside its own files: `N.key` and `N.value`
[heads, tokens, size] for each layer N.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from llmos.syscalls.errors import BadModel

from ..contract import ModelSource, ProgressSink
from . import checkpoint
from .finite import check_finite

FILE = "learned_tokens.safetensors"

Learned = tuple[tuple[Tensor, Tensor], ...]
"""For each layer keys and values, each [1, heads, tokens, size]."""

WHY = "learned tokens stand before each text, which only the library's own cache holds"


def count(source: ModelSource) -> int:
    """How many a folder has. Raises BadModel."""
    file = checkpoint.find(source, FILE)
    if file is None:
        return 0
    shapes = [entry["shape"] for entry in checkpoint.read_header(file).values()]
    found = {shape[1] for shape in shapes if len(shape) == 3}
    if len(found) != 1 or any(len(shape) != 3 for shape in shapes):
        raise _bad(source, "its tensors are not [heads, tokens, size], all of so many tokens")
    return int(found.pop())


def load(source: ModelSource, module: Any, dtype: torch.dtype, progress: ProgressSink) -> Learned:
    """Those of a folder, for its model. Raises BadModel."""
    weights = checkpoint.check_file(source, FILE)
    layers = int(module.config.get_text_config(decoder=True).num_hidden_layers)
    if set(weights.tensors) != {f"{layer}.{side}" for layer in range(layers) for side in ("key", "value")}:
        raise _bad(source, f"it needs keys and values of {layers} layers, and has {', '.join(sorted(weights.tensors))}")
    with checkpoint.folder_of(source) as folder:
        check_finite(folder, weights, progress)
        with safe_open(folder / FILE, framework="pt") as file:
            read = [
                [file.get_tensor(f"{layer}.{side}").to(dtype)[None] for side in ("key", "value")]
                for layer in range(layers)
            ]  # fmt: skip
    return tuple((keys, values) for keys, values in read)


def write(layers: Sequence[tuple[Tensor, Tensor]], folder: Path) -> None:
    """Write keys and values [1, heads, tokens, size] of all layers into a folder. Raises OSError."""
    tensors = {
        f"{layer}.{side}": value.detach()[0].cpu().contiguous()
        for layer, pair in enumerate(layers) for side, value in zip(("key", "value"), pair, strict=True)
    }  # fmt: skip
    save_file(tensors, folder / FILE, metadata={"format": "pt"})


def _bad(source: ModelSource, why: str) -> BadModel:
    return BadModel(f"{FILE} of {source.path}: {why}", file=FILE, why=why)
