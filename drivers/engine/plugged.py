"""Models whose class a package brings (`register_models`): the folder has the weights and says which class, no code.

Such a class is an `nn.Module` made from the folder's `config.json`; named tensors go in and come out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from llmos.syscalls.errors import BadModel

from ..contract import ModelSource
from .checkpoint import CONFIG, Weights


@dataclass(frozen=True)
class Architecture:
    """A class of models. `build` gets the configuration; `batched`: the first dimension of all tensors that go in or
    come out is that of the batch, so that requests may share one."""

    name: str
    build: Callable[[Mapping[str, Any]], nn.Module]
    batched: bool = False


Architectures = Mapping[str, Architecture]
"""Classes by the names that configurations use."""

NONE: Architectures = MappingProxyType({})


@dataclass(frozen=True)
class PluggedConfig:
    """The configuration of such a model, with what the engine asks of any."""

    architecture: Architecture
    fields: Mapping[str, Any]
    _attn_implementation: str = field(default="none", init=False)


class PluggedModule(nn.Module):
    """A model of a package, dressed as the engine expects models."""

    def __init__(self, config: PluggedConfig) -> None:
        super().__init__()
        self.config = config
        self.model = config.architecture.build(config.fields)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, **named: Tensor) -> Any:
        return self.model(**named)


def find(own: Architectures, raw: Mapping[str, Any]) -> PluggedConfig | None:
    """The class that a configuration names by `architectures` or `model_type`, if a package brought it."""
    listed = raw.get("architectures")
    names = [*listed[:1], raw.get("model_type")] if isinstance(listed, list) else [raw.get("model_type")]
    found = next((own[name] for name in names if isinstance(name, str) and name in own), None)
    return None if found is None else PluggedConfig(found, raw)


def build(source: ModelSource, config: PluggedConfig, dtype: torch.dtype) -> PluggedModule:
    """The model with the weights that its class gives it. Raises BadModel when the class cannot be built."""
    try:
        module = PluggedModule(config)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, AssertionError) as error:
        why = f"{config.architecture.name} cannot be built: {type(error).__name__}: {error}"
        raise BadModel(f"{CONFIG} of {source.path}: {why}", file=CONFIG, why=why) from error
    if not any(True for _ in module.parameters()):
        why = f"{config.architecture.name} has no parameters"
        raise BadModel(f"{CONFIG} of {source.path}: {why}", file=CONFIG, why=why)
    return module.to(dtype).eval().requires_grad_(False)


def load(source: ModelSource, folder: Path, config: PluggedConfig, dtype: torch.dtype, weights: Weights) -> nn.Module:
    """The model with the weights of its folder. Raises BadModel when they do not fit."""
    module = build(source, config, dtype)
    state: dict[str, Tensor] = {}
    for name in weights.files:
        state |= load_file(folder / name)
    own = dict(module.model.state_dict(keep_vars=True))
    given = {own[name].data_ptr() for name in state if name in own}
    wrong = {
        "needs": [name for name in own if name not in state and own[name].data_ptr() not in given],
        "needs another shape of": [name for name in state if name in own and own[name].shape != state[name].shape],
        "has no place for": [name for name in state if name not in own],
    }
    for what, names in wrong.items():
        if names:
            file = weights.file_of(*names)
            why = f"{config.architecture.name} {what} {', '.join(sorted(names)[:3])}"
            raise BadModel(f"{file} of {source.path} does not fit {CONFIG}: {why}", file=file, why=why)
    module.model.load_state_dict(state, strict=False)
    return module
