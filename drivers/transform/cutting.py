"""Writes a model without some of its heads or layers, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from llmos.syscalls.errors import BadArgument

from ..contract import ProgressSink
from . import pruning, shards, structure
from .shards import Shards, Tensors
from .structure import Heads


def without_layers(
    model: Tensors, config: Mapping[str, Any], gone: Sequence[int], folder: Path, progress: ProgressSink
) -> dict[str, Any]:
    """Leave layers out; those behind them move up. Raises BadArgument, NotSupported."""
    path = model.source.path
    text = structure.text_config(config)
    count = next((text[name] for name in structure.COUNTS if isinstance(text.get(name), int)), 0)
    kept = structure.left(count, gone, path)
    changed = structure.with_layers(config, kept, path)
    out = Shards(folder)
    for done, name in enumerate(model):
        progress(done, len(model), "tensors", "write")
        new = structure.moved(name, kept)
        if new is not None:
            out.add(new, model.read(name))
    out.close()
    shards.write_config(folder, changed)
    return {"removed": len(set(gone)), "layers": sorted(set(gone))}


def without_heads(
    model: Tensors, config: Mapping[str, Any], share: float, folder: Path, progress: ProgressSink
) -> dict[str, Any]:
    """Leave out a share of the groups of heads of each layer: those that can write least.

    Raises:
        BadArgument: the share is less than one group, or no number of groups near to it is one that the architecture
            can have.
        NotSupported: an attention of another form.
    """
    heads = structure.heads_of(config, {name: model.shape(name) for name in model}, model.source.path)
    count = _possible(config, heads, heads.groups - round(share * heads.groups), model.source.path)
    chosen: dict[int, list[int]] = {}
    for name in model:
        number = structure.layer_of(name)
        if number is not None and name.endswith("self_attn.v_proj.weight"):
            progress(len(chosen), 0, "layers", "score")
            outputs = model.read(name.replace("v_proj", "o_proj"))
            chosen[number] = _best(model.read(name), outputs, heads.groups, count)
    out = Shards(folder)
    for done, name in enumerate(model):
        progress(done, len(model), "tensors", "write")
        number = structure.layer_of(name)
        tensor = model.read(name)
        if number in chosen:
            tensor = structure.without_groups(name, tensor, chosen[number], heads)
        out.add(name, tensor)
    out.close()
    shards.write_config(folder, structure.with_heads(config, heads, count))
    gone = {str(number): [g for g in range(heads.groups) if g not in kept] for number, kept in chosen.items()}
    return {"removed": (heads.groups - count) * heads.each, "groups": gone}


def _best(values: Tensor, outputs: Tensor, groups: int, count: int) -> list[int]:
    """The groups that stay, in their order."""
    return sorted(pruning.head_scores(values, outputs, groups).topk(count).indices.tolist())


def _possible(config: Mapping[str, Any], heads: Heads, wanted: int, path: str) -> int:
    """The least number of groups, from `wanted` on, that a configuration of this type may have. Raises BadArgument."""
    possible = [count for count in range(1, heads.groups) if _accepted(structure.with_heads(config, heads, count))]
    found = next((count for count in possible if count >= wanted), 0)
    if not found:
        shares = ", ".join(f"{1 - count / heads.groups:g}" for count in reversed(possible)) or "none"
        text = f"{path} has {heads.groups} groups of heads; the parts of them that can go are {shares}"
        raise BadArgument(text, name="sparsity", want=shares)
    return found


def _accepted(config: Mapping[str, Any]) -> bool:
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    fields = {name: value for name, value in config.items() if name != "model_type"}
    try:
        transformers.AutoConfig.for_model(config["model_type"], **fields)
    except (StrictDataclassError, ValueError, KeyError):
        return False
    return True
