"""Bottleneck adapters: small layers that the answers of a model's layers go through (Houlsby et al. 2019, 1902.00751).

A folder that has them is a model's, with two files beside its own: `bottleneck.json` with `width`, `activation` and
`layers` (paths in the model), and `bottleneck.safetensors` with `PATH.down.weight` [width, H], `PATH.down.bias`,
`PATH.up.weight` [H, width] and `PATH.up.bias` for each of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from llmos.syscalls.errors import BadModel

from ..contract import ModelSource, ProgressSink
from . import checkpoint
from .finite import check_finite

SETTINGS, WEIGHTS = "bottleneck.json", "bottleneck.safetensors"

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu, "relu": functional.relu, "silu": functional.silu, "tanh": torch.tanh,
}  # fmt: skip


@dataclass(frozen=True)
class Bottlenecks:
    """Which layers of a model have one, how wide they are, and what is between down and up."""

    width: int
    activation: str
    layers: tuple[str, ...]


class Bottleneck(nn.Module):
    """x [.., size] to x + up(activation(down(x))), in the dtype of x; computed in `dtype`. It begins as x."""

    def __init__(self, size: int, width: int, activation: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(size, width, dtype=dtype), nn.Linear(width, size, dtype=dtype)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self._between, self._dtype = ACTIVATIONS[activation], dtype

    def forward(self, x: Tensor) -> Tensor:
        moved: Tensor = self.up(self._between(self.down(x.to(self._dtype))))
        return x + moved.to(x.dtype)


class Followed(nn.Module):
    """A layer whose answers go through a bottleneck."""

    def __init__(self, inner: nn.Module, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.inner, self.bottleneck = inner, bottleneck

    @property
    def weight(self) -> Tensor:
        """The layer's, for code that looks at it."""
        weight: Any = self.inner.weight
        found: Tensor = weight
        return found

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.bottleneck(self.inner(x))
        return answer


def size_of(layer: Any) -> int:
    """How long the answers of a linear layer are; 0 for another module."""
    return int(getattr(layer, "out_features", 0) or getattr(layer, "nf", 0))


def put(module: nn.Module, asked: Bottlenecks, dtype: torch.dtype) -> None:
    """Put one behind each layer. Raises KeyError naming a layer that is not there."""
    named = dict(module.named_modules())
    for path in asked.layers:
        layer = named.get(path)
        if layer is None or not size_of(layer):
            raise KeyError(path)
        parent, _, name = path.rpartition(".")
        made = Bottleneck(size_of(layer), asked.width, asked.activation, dtype)
        setattr(module.get_submodule(parent), name, Followed(layer, made))


def read(source: ModelSource) -> Bottlenecks | None:
    """Those of a folder; None where it has none. Raises BadModel."""
    if checkpoint.find(source, SETTINGS) is None:
        return None
    said = checkpoint.read_json(source, SETTINGS)
    width, activation, layers = said.get("width"), said.get("activation"), said.get("layers")
    named = isinstance(layers, list) and bool(layers) and all(isinstance(each, str) for each in layers)
    if not (isinstance(width, int) and width > 0 and activation in ACTIVATIONS and named):
        why = f"it needs a width above 0, an activation of {', '.join(ACTIVATIONS)}, and paths of layers"
        raise BadModel(f"{SETTINGS} of {source.path}: {why}", file=SETTINGS, why=why)
    assert isinstance(layers, list)
    return Bottlenecks(width, str(activation), tuple(layers))


def load(
    module: nn.Module, asked: Bottlenecks, dtype: torch.dtype, source: ModelSource, progress: ProgressSink
) -> None:
    """Put those of a folder behind the layers of its model, with their weights. Raises BadModel."""
    weights = checkpoint.check_file(source, WEIGHTS)
    try:
        put(module, asked, dtype)
        with checkpoint.folder_of(source) as folder:
            check_finite(folder, weights, progress)
            with safe_open(folder / WEIGHTS, framework="pt") as file:
                for name, parameter in parameters_of(module).items():
                    with torch.no_grad():
                        parameter.copy_(file.get_tensor(name))
    except (KeyError, SafetensorError, RuntimeError) as error:
        why = f"{error} does not fit the model" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise BadModel(f"{WEIGHTS} of {source.path}: {why}", file=WEIGHTS, why=why) from error


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """Those of all bottlenecks of a model, as files name them."""
    found = [(path, part) for path, part in module.named_modules() if isinstance(part, Followed)]
    return {
        f"{path}.{name}": value for path, part in found for name, value in part.bottleneck.named_parameters()
    }  # fmt: skip


def write(module: nn.Module, width: int, activation: str, folder: Path, dtype: torch.dtype) -> None:
    """Write those of a model into a folder. Raises OSError."""
    layers: Sequence[str] = [path for path, part in module.named_modules() if isinstance(part, Followed)]
    said = asdict(Bottlenecks(width, activation, tuple(layers)))
    (folder / SETTINGS).write_text(json.dumps(said, indent=2) + "\n")
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in parameters_of(module).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
