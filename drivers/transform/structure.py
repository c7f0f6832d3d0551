"""Whole heads and layers taken out of a stored model: which tensors lose which rows, and what is called how then."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument, NotSupported

LAYER = re.compile(r"(?P<before>(?:.*?\.)?(?:layers|h|block|blocks|layer)\.)(?P<number>\d+)(?P<after>\..+)")
"""Where a tensor's name says of which layer it is."""
COUNTS = ("num_hidden_layers", "n_layer", "num_layers")
PARTS = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Heads:
    """The heads of a model's attention: `groups` of keys and values, each with `each` queries, of `depth` numbers."""

    groups: int
    each: int
    depth: int


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that is about the language model."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def changed(config: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A configuration with other fields of the language model."""
    if text_config(config) is config:
        return {**config, **fields}
    return {**config, "text_config": {**config["text_config"], **fields}}


def layer_of(name: str) -> int | None:
    """The number of the layer that a tensor belongs to."""
    found = LAYER.fullmatch(name)
    return None if found is None else int(found["number"])


def is_layer(path: str) -> bool:
    """Whether a module of this path is a whole layer."""
    found = LAYER.fullmatch(f"{path}.weight")
    return found is not None and found["after"] == ".weight"


def moved(name: str, kept: Sequence[int]) -> str | None:
    """The name of a tensor when only these layers are left, in this order; None where it goes."""
    found = LAYER.fullmatch(name)
    if found is None:
        return name
    number = int(found["number"])
    return f"{found['before']}{kept.index(number)}{found['after']}" if number in kept else None


def with_layers(config: Mapping[str, Any], kept: Sequence[int], path: str) -> dict[str, Any]:
    """The configuration when only these layers are left. Lists with an entry for each layer follow.

    Raises:
        NotSupported: it does not say how many layers there are.
    """
    text = text_config(config)
    name = next((name for name in COUNTS if isinstance(text.get(name), int)), None)
    if name is None:
        why = f"its configuration has none of {', '.join(COUNTS)}"
        raise NotSupported(f"{path}: layers are not taken out: {why}", why=why)
    count = text[name]
    lists = {key: [value[n] for n in kept] for key, value in text.items() if _is_per_layer(value, count)}
    return changed(config, **{**lists, name: len(kept)})


def left(count: int, gone: Collection[Any], path: str) -> list[int]:
    """The layers that are left. Raises BadArgument."""
    known = [number for number in gone if type(number) is int and 0 <= number < count]
    if len(known) < len(gone) or len(set(known)) >= count:
        want = f"numbers from 0 to {count - 1}, and not all of them"
        said = f"{path} has {count} layers; {[*gone]} cannot go: say {want}"
        raise BadArgument(said, name="layers", got=str([*gone])[:80], want=want)
    return [number for number in range(count) if number not in gone]


def heads_of(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: str) -> Heads:
    """The heads of a model whose attention has q_proj, k_proj, v_proj and o_proj. Raises NotSupported."""
    text = text_config(config)
    queries = text.get("num_attention_heads")
    groups = text.get("num_key_value_heads") or queries
    for part in PARTS:
        if not any(name.endswith(f"self_attn.{part}.weight") for name in shapes):
            raise _no_heads(path, f"its attention has no {part}")
    if not (isinstance(queries, int) and isinstance(groups, int) and groups > 0 and queries % groups == 0):
        raise _no_heads(path, f"its configuration has {queries} heads and {groups} of keys and values")
    rows = {shape[0] for name, shape in shapes.items() if name.endswith("self_attn.q_proj.weight")}
    if len(rows) != 1 or (size := rows.pop()) % queries:
        raise _no_heads(path, "its layers have heads of different sizes")
    for name, shape in shapes.items():
        if re.search(r"self_attn\.[kv]_proj\.weight$", name) and shape[0] != groups * (size // queries):
            raise _no_heads(path, f"{name} has {shape[0]} rows, {groups} heads of {size // queries} are expected")
    return Heads(groups, queries // groups, size // queries)


def with_heads(config: Mapping[str, Any], heads: Heads, groups: int) -> dict[str, Any]:
    """The configuration when each layer has so many groups of heads left."""
    fields = {"num_attention_heads": groups * heads.each, "num_key_value_heads": groups, "head_dim": heads.depth}
    return changed(config, **fields)


def without_groups(name: str, tensor: Tensor, kept: Sequence[int], heads: Heads) -> Tensor:
    """A tensor of an attention with only these groups of heads; every other one as it is."""
    found = re.search(r"self_attn\.(q|k|v|o)_proj\.(weight|bias)$", name)
    if found is None or (found[1] == "o" and found[2] == "bias"):
        return tensor
    each = (heads.each if found[1] in "qo" else 1) * heads.depth
    at = torch.tensor([row for group in kept for row in range(group * each, (group + 1) * each)])
    return tensor.index_select(1 if found[1] == "o" else 0, at)


def _is_per_layer(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and count > 1


def _no_heads(path: str, why: str) -> NotSupported:
    return NotSupported(f"{path}: heads are not taken out: {why}", why=why)
