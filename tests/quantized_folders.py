"""Folders of quantized weights as they are stored, and their twins: the same models with the dequantized weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from llmos.drivers.engine.quantized.folder import Quantized
from llmos.drivers.engine.quantized.stored import NUMBERS, SCALE, SHIFT
from llmos.drivers.ops.quantized import QuantizedWeight, Scheme, round_to_nearest

W4, W8 = Scheme(4, 32), Scheme(8, 32)


def quantize(
    folder: Path, out: Path, scheme: Scheme = W8, head: Scheme | None = W8, activations: str = "model",
    auto: Any = transformers.AutoModelForCausalLM,
) -> tuple[Path, Path]:  # fmt: skip
    """Quantize all linear layers of a model but routers; its output layer as `head`. The folder, and its twin's."""
    module = auto.from_pretrained(folder, local_files_only=True)
    made = _weights(module, scheme, head)
    tied = bool(getattr(module.config, "tie_word_embeddings", False)) and "lm_head" in made
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    twin, stored = dict(state), dict(state)
    for name, weight in made.items():
        stored.pop(f"{name}.weight")
        parts = {NUMBERS: weight.numbers, SCALE: weight.scale, SHIFT: weight.shift}
        stored |= {f"{name}.{part}": tensor.contiguous() for part, tensor in parts.items() if tensor is not None}
        twin[f"{name}.weight"] = weight.dequantized().to(state[f"{name}.weight"].dtype)
    if tied:
        embedding = next(name for name, part in module.named_modules() if part is module.get_input_embeddings())
        del stored[f"{embedding}.weight"]
        twin[f"{embedding}.weight"] = twin.pop("lm_head.weight")
    config = json.loads((folder / "config.json").read_text())
    quantized = Quantized({name: weight.scheme for name, weight in made.items()}, activations)
    _write(folder, out / "quantized", stored, {**config, "quantization_config": quantized.as_config()})
    _write(folder, out / "twin", twin, config)
    return out / "quantized", out / "twin"


def _weights(module: Any, scheme: Scheme, head: Scheme | None) -> dict[str, QuantizedWeight]:
    chosen = {
        name: head if name == "lm_head" else scheme
        for name, part in module.named_modules()
        if type(part) is nn.Linear and not name.endswith("gate")
    }
    return {
        name: round_to_nearest(module.get_submodule(name).weight.detach(), each)
        for name, each in chosen.items()
        if each is not None
    }


def _write(source: Path, folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
