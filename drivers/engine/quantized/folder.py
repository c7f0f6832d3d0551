"""What a folder says about its quantized weights: `quantization_config` of config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from llmos.syscalls.errors import BadArgument, BadModel

from ...ops.quantized import Scheme
from ...ops.quantized_linear import ACTIVATIONS

KEY = "quantization_config"
METHOD, VERSION = "llmos", 1
AUTO = "auto"


@dataclass(frozen=True)
class Quantized:
    """The linear layers of a model that are quantized, by name, and what their inputs are rounded to (`auto`: what the
    device is best at)."""

    modules: Mapping[str, Scheme]
    activations: str = AUTO
    scales: Mapping[str, torch.dtype] = field(default_factory=dict)
    """The dtypes of scales that are not float16."""

    def as_config(self) -> dict[str, Any]:
        """What config.json keeps under `quantization_config`."""
        modules = {name: asdict(scheme) for name, scheme in self.modules.items()}
        return {"quant_method": METHOD, "version": VERSION, "activations": self.activations, "modules": modules}


def read(path: str, value: Mapping[str, Any]) -> Quantized:
    """The reverse of `as_config`; `path` is the model's, for errors. Raises BadModel."""
    if value.get("version") != VERSION:
        raise _bad(path, f"version is {value.get('version')!r}, this one reads {VERSION}")
    activations, modules = value.get("activations", AUTO), value.get("modules")
    if activations not in (AUTO, *ACTIVATIONS):
        raise _bad(path, f"activations are {activations!r}, expected {AUTO} or one of {', '.join(ACTIVATIONS)}")
    if not isinstance(modules, dict) or not modules:
        raise _bad(path, "it names no modules")
    return Quantized({name: _scheme(path, name, scheme) for name, scheme in modules.items()}, activations)


def _scheme(path: str, name: str, value: Any) -> Scheme:
    try:
        return Scheme(**value)
    except (TypeError, BadArgument) as error:
        raise _bad(path, f"the scheme of {name} is not valid: {error}") from error


def _bad(path: str, why: str) -> BadModel:
    return BadModel(f"config.json of {path}: {KEY}: {why}; quantize the model again", file="config.json", why=why)
