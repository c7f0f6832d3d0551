"""Small models as files: any tensors, with a configuration that says of what type they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

CONFIG: Mapping[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def store(folder: Path, tensors: Mapping[str, torch.Tensor], **config: Any) -> Path:
    """A folder with these tensors in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, from one file or from shards, clones of what is mapped."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def matrices(count: int, rows: int = 8, columns: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random matrices `layer.0`, `layer.1`, ..."""
    generator = torch.Generator().manual_seed(seed)
    return {f"layer.{number}": torch.randn(rows, columns, generator=generator) for number in range(count)}
