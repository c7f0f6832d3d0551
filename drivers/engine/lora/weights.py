"""What the tensors of a LoRA adapter in PEFT layout mean: which layers they change, and by how much.

The layout and the meaning of its settings are those of github.com/huggingface/peft; peft itself is not needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from llmos.syscalls.errors import BadModel, NotSupported

from ..checkpoint import ADAPTER_CONFIG

HARMLESS_INITS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Ways an adapter was initialised that left the base's weights alone; PiSSA and its kin change them."""

VARIANTS: Mapping[str, str] = {
    "use_dora": "it scales the base's weights too (DoRA)",
    "use_qalora": "it pools its inputs (QALoRA)",
    "use_bdlora": "its matrices are block diagonal (BD-LoRA)",
    "kasa_config": "it was trained on truncated base weights (KaSA)",
    "monteclora_config": "its matrices are drawn at random (MonteCLoRA)",
    "arrow_config": "it chooses among other adapters (Arrow)",
    "alora_invocation_tokens": "it starts with certain tokens only (aLoRA)",
    "lora_bias": "its second matrix has a bias (lora_bias)",
    "modules_to_save": "whole layers are saved beside it (modules_to_save)",
    "target_parameters": "it changes parameters that are no layers of their own (target_parameters)",
    "trainable_token_indices": "it changes embeddings of single tokens (trainable_token_indices)",
    "layer_replication": "it adds layers to the base (layer_replication)",
}
"""Settings of kinds of adapters that are more, or less, than a low-rank sum in each target."""

WRAPPERS = ("base_model.model.", "base_model.")
MATRIX = re.compile(r"(?P<target>.+)\.lora_(?P<side>[AB])(\.[^.]+)?\.weight")
COPY = re.compile(r"(?P<target>.+?)(\.base_layer)?\.weight")


@dataclass(frozen=True)
class LoraPair:
    """One target's matrices, a [r, K] and b [N, r]: its output grows by `scale` * b a x."""

    a: Tensor
    b: Tensor
    scale: float = 1.0


@dataclass(frozen=True)
class LoraWeights:
    """An adapter's pairs by the path of their target in the base.

    `copies` are whole weights of the base that were saved beside them, `complete` the last parts of the paths of all
    targets where those are known, and `file` says where the tensors come from.
    """

    pairs: Mapping[str, LoraPair]
    file: str
    copies: Mapping[str, Tensor] = field(default_factory=dict)
    complete: tuple[str, ...] = ()

    @property
    def elements(self) -> int:
        """Of all pairs."""
        return sum(pair.a.numel() + pair.b.numel() for pair in self.pairs.values())

    @property
    def bytes(self) -> int:
        """Of all pairs."""
        return sum(pair.a.nbytes + pair.b.nbytes for pair in self.pairs.values())


def check_config(config: Mapping[str, Any], name: str) -> None:
    """Raises NotSupported for an adapter that is not plain LoRA, BadModel for a setting of a wrong kind."""
    init = config.get("init_lora_weights", True)
    wrong = [why for key, why in VARIANTS.items() if config.get(key)]
    if config.get("peft_type") != "LORA":
        wrong.insert(0, f"a {config.get('peft_type')} adapter is not LoRA")
    if init not in HARMLESS_INITS:
        wrong.append(f"it was trained on changed base weights (init_lora_weights {init!r})")
    if config.get("bias", "none") != "none":
        wrong.append("it changes biases of the base (bias)")
    if wrong:
        raise NotSupported(f"{name}: {wrong[0]}", why=wrong[0])
    scale_of("", config, name)


def scale_of(target: str, config: Mapping[str, Any], name: str) -> tuple[int, float]:
    """Rank and scale of a target. Raises BadModel for settings of a wrong kind."""
    try:
        rank = _setting(target, config, "rank_pattern", config.get("r", 8))
        alpha = _setting(target, config, "alpha_pattern", config.get("lora_alpha", 8))
        if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float) and math.isfinite(alpha)):
            raise ValueError(f"r is {rank!r} and lora_alpha {alpha!r}")
    except (ValueError, TypeError, AttributeError, re.error) as error:
        why = f"rank or alpha are not valid: {error}"
        raise BadModel(f"{ADAPTER_CONFIG} of {name}: {why}", file=ADAPTER_CONFIG, why=why) from error
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _setting(target: str, config: Mapping[str, Any], pattern: str, default: Any) -> Any:
    """The first pattern that the end of the target's path matches decides."""
    given = config.get(pattern) or {}
    found = (value for key, value in given.items() if re.match(rf"(.*\.)?({key})$", target))
    return next(found, default)


def interpret(tensors: Mapping[str, Tensor], config: Mapping[str, Any], name: str, file: str) -> LoraWeights:
    """Pairs and scales of an adapter's tensors. Raises NotSupported, and BadModel naming the tensor."""
    check_config(config, name)
    sides: dict[str, dict[str, Tensor]] = {}
    copies: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        path = _unwrapped(key)
        matrix, copy = MATRIX.fullmatch(path), COPY.fullmatch(path)
        if matrix is not None:
            sides.setdefault(matrix["target"], {})[matrix["side"]] = tensor
        elif copy is not None and "lora_" not in path:
            copies[copy["target"]] = tensor
        else:
            why = f"{key} is no matrix of a linear layer's adapter"
            raise NotSupported(f"{name}: {why}", why=why)
    if not sides:
        raise BadModel(f"{file} of {name} holds no adapter", file=file, why="no tensor of it is a LoRA matrix")
    pairs = {target: _pair(target, found, config, name, file) for target, found in sides.items()}
    return LoraWeights(pairs, file, copies, _every_target(config))


def _unwrapped(key: str) -> str:
    return next((key.removeprefix(wrapper) for wrapper in WRAPPERS if key.startswith(wrapper)), key)


def _pair(target: str, found: Mapping[str, Tensor], config: Mapping[str, Any], name: str, file: str) -> LoraPair:
    rank, scale = scale_of(target, config, name)
    why = ""
    for side, inner in (("A", 0), ("B", 1)):
        tensor = found.get(side)
        if tensor is None:
            why = f"it does not fit the base: lora_{side} of {target} is missing"
        elif tensor.dim() != 2 or tensor.shape[inner] != rank:
            why = f"lora_{side} of {target} has the shape {list(tensor.shape)}, not the rank {rank} of {ADAPTER_CONFIG}"
    if why:
        raise BadModel(f"{file} of {name}: {why}", file=file, why=why)
    return LoraPair(found["A"], found["B"], scale)


def _every_target(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of all targets, when nothing narrows them down."""
    named = config.get("target_modules")
    narrowed = any(config.get(key) is not None for key in ("layers_to_transform", "layers_pattern", "exclude_modules"))
    return tuple(named) if isinstance(named, list) and not narrowed and _are_text(named) else ()


def _are_text(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
