"""How a folder's weights are quantized, in a word, and how many of them its packed tensors hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .headers import TensorHeader

OURS = "llmos"
PACKED = {".qweight": 32, ".weight_packed": 32}
"""Tensors that hold several numbers in an element of so many bits."""
BESIDE = (
    ".scale", ".shift", ".qzeros", ".scales", ".g_idx", ".weight_scale", ".weight_zero_point", ".weight_shape",
    ".weight_g_idx", ".input_scale", ".SCB", ".weight_format", ".absmax", ".quant_map", ".nested_absmax",
    ".nested_quant_map",
)  # fmt: skip
"""Tensors that say what numbers mean, and are no weights."""
STATE = ".quant_state."


def short_name(config: Mapping[str, Any]) -> str | None:
    """Such as `w4-g128` of ours, `gptq w4-g128`, `bitsandbytes nf4`; None where nothing is quantized."""
    told = config.get("quantization_config")
    if not isinstance(told, dict):
        return None
    method = str(told.get("quant_method", "unknown"))
    if method == OURS:
        modules = told.get("modules")
        schemes = list(modules.values()) if isinstance(modules, dict) else []
        names = Counter(_scheme(each.get("width"), each.get("group")) for each in schemes if isinstance(each, dict))
        return names.most_common(1)[0][0] if names else OURS
    if method == "bitsandbytes":
        kind = told.get("bnb_4bit_quant_type", "fp4") if told.get("load_in_4bit") else "int8"
        return f"{method} {kind}"
    bits, group = _width(told)
    return f"{method} {_scheme(bits, group)}" if bits else method


def parameters(tensors: Iterable[TensorHeader], config: Mapping[str, Any]) -> int:
    """How many weights the tensors hold."""
    told = config.get("quantization_config")
    if not isinstance(told, dict):
        return sum(tensor.elements for tensor in tensors)
    return sum(_weights(tensor, told) for tensor in tensors)


def _weights(tensor: TensorHeader, told: Mapping[str, Any]) -> int:
    name = tensor.name
    if name.endswith(BESIDE) or STATE in name:
        return 0
    if name.endswith(".numbers"):
        modules = told.get("modules")
        scheme = modules.get(name.removesuffix(".numbers"), {}) if isinstance(modules, dict) else {}
        return tensor.elements * (2 if scheme.get("width") == 4 else 1)
    bits = _width(told)[0]
    for ending, size in PACKED.items():
        if name.endswith(ending) and bits:
            return tensor.elements * size // bits
    halves = told.get("load_in_4bit") and tensor.dtype == "U8" and name.endswith(".weight")
    return tensor.elements * (2 if halves else 1)


def _width(told: Mapping[str, Any]) -> tuple[int, int]:
    """Bits of a weight and inputs of a group as the configurations of others say them; 0 where they do not."""
    bits, group = told.get("bits") or told.get("w_bit"), told.get("group_size") or told.get("q_group_size")
    groups = told.get("config_groups")
    if isinstance(groups, dict) and groups:
        first = next(iter(groups.values()))
        weights = first.get("weights") if isinstance(first, dict) else None
        weights = weights if isinstance(weights, dict) else {}
        bits, group = weights.get("num_bits"), weights.get("group_size")
    return bits if type(bits) is int else 0, group if type(group) is int else 0


def _scheme(width: Any, group: Any) -> str:
    return f"w{width}" + (f"-g{group}" if type(group) is int and group > 0 else "")
