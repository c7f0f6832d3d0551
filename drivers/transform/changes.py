"""What an adapter makes of each tensor of its base: low-rank sums, DoRA, (IA)3, and layers that were saved whole.

The layout and the meaning of the settings are those of github.com/huggingface/peft.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from llmos.syscalls.errors import BadModel, NotSupported

from ..engine.checkpoint import ADAPTER_WEIGHTS
from ..engine.lora.weights import WRAPPERS, LoraPair, interpret
from . import merging

MAGNITUDE = ".lora_magnitude_vector"
SCALES = ".ia3_l"
WHOLE = ("modules_to_save",)
"""Settings that say which layers were saved whole."""

Place = tuple[str, str]
"""A layer's path in the model, and weight or bias."""


class Change(Protocol):
    """What becomes of one tensor."""

    optional: ClassVar[bool]
    """Whether a base without such a tensor has nothing to change there."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor in the base; 1 where any size will do."""

    def __call__(self, tensor: Tensor, weight: float) -> Tensor:
        """The changed tensor in float32, from that of the base; with the change as often as `weight` says."""


@dataclass(frozen=True)
class LowRank:
    """W + s b a (LoRA). `copy`: the base's own weight where it was saved beside."""

    optional: ClassVar[bool] = False
    pair: LoraPair
    transposed: bool
    copy: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        sizes = len(self.pair.b), self.pair.a.shape[1]
        return sizes[::-1] if self.transposed else sizes

    def __call__(self, tensor: Tensor, weight: float) -> Tensor:
        start = tensor if self.copy is None else self.copy
        return merging.low_rank(start, self.pair.a, self.pair.b, weight * self.pair.scale, self.transposed)


@dataclass(frozen=True)
class Directed:
    """m (W + s b a) / |W + s b a|, the length of each output's row (DoRA, arXiv:2402.09353)."""

    optional: ClassVar[bool] = False
    moved: LowRank
    magnitude: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.moved.shape

    def __call__(self, tensor: Tensor, weight: float) -> Tensor:
        moved = self.moved(tensor, weight)
        inner = 0 if self.moved.transposed else 1
        lengths = torch.linalg.vector_norm(moved, dim=inner, keepdim=True)
        directed: Tensor = moved / lengths * self.magnitude.float().reshape(lengths.shape)
        return directed


@dataclass(frozen=True)
class Scaled:
    """W with each row or column multiplied ((IA)3, arXiv:2205.05638); rows with their bias, where there is one."""

    optional: ClassVar[bool] = True
    scales: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.scales.shape)

    def __call__(self, tensor: Tensor, weight: float) -> Tensor:
        return tensor.float() * self.scales.float()


@dataclass(frozen=True)
class Replaced:
    """Another tensor in its place."""

    optional: ClassVar[bool] = False
    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def __call__(self, tensor: Tensor, weight: float) -> Tensor:
        return self.tensor.float()


def changes_of(tensors: Mapping[str, Tensor], config: Mapping[str, Any], path: str) -> Mapping[Place, Change]:
    """Raises NotSupported for an adapter of another kind, BadModel for tensors that do not fit together."""
    whole = tuple(str(name) for setting in WHOLE for name in config.get(setting) or ())
    plain = {name: value for name, value in tensors.items() if not _saved_whole(name, whole)}
    changes: dict[Place, Change] = {
        _place(name): Replaced(value) for name, value in tensors.items() if name not in plain
    }
    if config.get("peft_type") == "IA3":
        return changes | _scaled(plain, config, path)
    low_rank = {name: value for name, value in plain.items() if not name.endswith(MAGNITUDE)}
    settings = {**config, **dict.fromkeys(WHOLE), "use_dora": False}
    weights, transposed = interpret(low_rank, settings, path, ADAPTER_WEIGHTS), bool(config.get("fan_in_fan_out"))
    changes |= {(layer, "weight"): Replaced(value) for layer, value in weights.copies.items()}
    for layer, pair in weights.pairs.items():
        changes[layer, "weight"] = LowRank(pair, transposed, weights.copies.get(layer))
    for name in plain.keys() - low_rank.keys():
        layer = _unwrapped(name).removesuffix(MAGNITUDE)
        moved = changes.get((layer, "weight"))
        if not isinstance(moved, LowRank):
            why = f"{name} has no matrices beside it"
            raise BadModel(f"{ADAPTER_WEIGHTS} of {path}: {why}", file=ADAPTER_WEIGHTS, why=why)
        changes[layer, "weight"] = Directed(moved, plain[name])
    left = [layer for (layer, _), change in changes.items() if isinstance(change, LowRank)]
    if config.get("use_dora") and left:
        why = f"{left[0]} has no magnitude, as DoRA has it"
        raise BadModel(f"{ADAPTER_WEIGHTS} of {path}: {why}", file=ADAPTER_WEIGHTS, why=why)
    return changes


def fits(change: Change, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of the base can be changed so."""
    wanted = change.shape
    return len(wanted) == len(shape) and all(
        size == its or (isinstance(change, Scaled) and size == 1) for size, its in zip(wanted, shape, strict=True)
    )


def check_weight(change: Change, weight: float, path: str) -> None:
    """Raises NotSupported for a part of what can only be had whole."""
    if weight != 1.0 and not isinstance(change, LowRank):
        why = f"it is more than a low-rank sum, so it has no weight, not {weight:g}"
        raise NotSupported(f"{path}: {why}; leave its weight at 1", why=why)


def _scaled(tensors: Mapping[str, Tensor], config: Mapping[str, Any], path: str) -> dict[Place, Change]:
    """Rows of a weight and its bias, or the columns of a layer whose inputs are scaled."""
    changes: dict[Place, Change] = {}
    transposed = bool(config.get("fan_in_fan_out"))
    for name, value in tensors.items():
        layer, dot, rest = _unwrapped(name).partition(SCALES)
        if not dot or rest or value.dim() != 2 or 1 not in value.shape:
            why = f"{name} of the shape {list(value.shape)} does not scale a layer"
            raise BadModel(f"{ADAPTER_WEIGHTS} of {path}: {why}", file=ADAPTER_WEIGHTS, why=why)
        changes[layer, "weight"] = Scaled(value.T if transposed else value)
        if value.shape[1] == 1:
            changes[layer, "bias"] = Scaled(value[:, 0])
    return changes


def _saved_whole(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a tensor is of one of these modules, or inside one."""
    return any(module in _unwrapped(name).split(".") for module in modules) and "lora_" not in name


def _place(name: str) -> Place:
    layer, _, part = _unwrapped(name).rpartition(".")
    return layer, part


def _unwrapped(name: str) -> str:
    return next((name.removeprefix(wrapper) for wrapper in WRAPPERS if name.startswith(wrapper)), name)
