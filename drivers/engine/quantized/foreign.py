"""Folders that other projects quantized, loaded as if they were ours: layer by layer, while the library asks for them.

What is read is said by `llmos.drivers.formats.foreign`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from ...contract import ModelSource
from ...formats import foreign
from ...formats.foreign import Foreign, Part
from ..checkpoint import Weights
from . import folder as own
from .folder import Quantized
from .quantizing import Report

GENERATION = "generation_config.json"


def opened(source: ModelSource, raw: Mapping[str, Any], folder: Path, weights: Weights) -> Foreign | None:
    """The checkpoint in a folder whose configuration is `raw`; None where its weights are whole, or quantized by us.

    Raises NotSupported, BadModel.
    """
    told = raw.get(own.KEY)
    if not isinstance(told, dict) or told.get("quant_method") == own.METHOD:
        return None
    return foreign.read(source.path, told, foreign.SafeFiles(weights.tensors, str(folder)))


def fitted(found: Foreign, module: nn.Module, config: Any) -> tuple[Foreign, Quantized | None]:
    """The checkpoint for a module on the meta device, of which linear layers alone stay quantized; and how they are,
    which the module's configuration says from now on."""
    linear = {name for name, part in module.named_modules() if type(part) is nn.Linear}
    found = found.only(linear.__contains__)
    if not found.modules:
        del config.quantization_config
        return found, None
    wide = {
        name: torch.float32
        for name, scheme in found.modules.items()
        if scheme.shift or found.layers[name].scale == torch.float32
    }
    quantized = Quantized(found.modules, scales=wide)
    config.quantization_config = quantized.as_config()
    return found, quantized


def load_foreign(
    made: Any, found: Foreign, folder: Path, config: Any, dtype: torch.dtype, report: Report, **options: Any
) -> tuple[Any, Any]:
    """The module, of the class `made`, and what the library says about the loading. `report` is called before each
    tensor is read, and may give memory back. Raises what the library raises."""

    def reported(part: Part) -> Tensor:
        report()
        return part.read()

    state = {name: replace(part, read=partial(reported, part)) for name, part in found.parts(dtype).items()}
    module, info = made.from_pretrained(None, config=config, dtype=dtype, state_dict=state, **options)
    if (folder / GENERATION).exists() and module.can_generate():
        module.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return module, info
