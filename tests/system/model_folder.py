"""Model folders for the null device: the smallest thing that the `models` file system accepts as a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048}


def safetensors() -> bytes:
    """A file with one tensor of one number."""
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


def write_model(folder: Path, *, size: int | None = None, faults: Sequence[str] = (), **manifest: Any) -> Path:
    """A model in `folder`; `size` is what the null device pretends it takes, `faults` happen at load."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(safetensors())
    null: dict[str, Any] = {} if size is None else {"bytes": size}
    if faults:
        null["faults"] = list(faults)
    if null or manifest:
        (folder / "manifest.json").write_text(json.dumps({"format": 1, "null": null, **manifest}))
    return folder


def write_versions(folder: Path, *names: str, **manifest: Any) -> Path:
    """One model with several stored versions, the last one current."""
    for order, name in enumerate(names, 1):
        write_model(folder / "versions" / name, version=name, order=order, **manifest)
    return folder
