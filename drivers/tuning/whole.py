"""A model whose own weights have moved, written as a model of its own: anything that serves the base serves it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from ..engine.bottleneck import Bottleneck
from ..engine.loader import Bundle
from ..formats.shards import Shards
from .owning import Shifted, tied
from .resident import ResidentEmbedding, ResidentLinear

Change = Callable[[Tensor], Tensor]
"""A tensor as it is to be stored, from that of the module."""
NOTHING: Mapping[str, Change] = {}


@torch.no_grad()
def export(
    module: Any, bundle: Bundle, folder: Path, labels: Sequence[str] = (), changes: Mapping[str, Change] = NOTHING
) -> None:
    """Write a model into a folder as the library does: weights in the dtype that they were stored in, configuration,
    tokenizer.

    What was quantized in the base and has not moved is written as what its numbers stand for.

    Args:
        module: a view of the base (`resident.training_view`) with parts of its own.
        bundle: the base.
        folder: an empty one.
        labels: names of classes, where the data had them.
        changes: what else becomes of tensors, by their names.

    Raises:
        OSError
    """
    out = Shards(folder)
    for name, tensor in tensors_of(module):
        changed = changes[name](tensor) if name in changes else tensor
        stored = changed.to(bundle.about.dtype) if changed.is_floating_point() else changed
        out.add(name, stored.cpu().contiguous())
    out.close()
    config = copy.deepcopy(bundle.about.config)
    config.__dict__.pop("quantization_config", None)
    config.dtype, config.architectures = bundle.about.dtype, [type(module).__name__]
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: number for number, name in enumerate(labels)}
    config.save_pretrained(folder)
    for front in (bundle.tokenizer, bundle.processor):
        if front is not None:
            front.save_pretrained(folder)
    if bundle.eos:
        generation: Any = transformers.GenerationConfig
        generation(eos_token_id=sorted(bundle.eos)).save_pretrained(folder)


def tensors_of(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names as the library has them, and tensors, one after the other: those that are another's are left out."""
    held: Any = module
    same = _path_of(module, held.get_output_embeddings()) if tied(module) else ""
    shifts: dict[str, Tensor] = {}
    beside = tuple(f"{path}." for path, part in module.named_modules() if isinstance(part, Bottleneck))
    for path, part in module.named_modules():
        if path.startswith(beside):
            continue
        if isinstance(part, Shifted):
            shifts[f"{path}.inner"] = part.shift
            continue
        own = dict(_own(part))
        if path in shifts:
            own["bias"] = own["bias"].float() + shifts[path]
        for name, tensor in own.items():
            if not same or f"{path}.{name}" != f"{same}.weight":
                yield f"{path}.{name}".replace(".inner.", ".").lstrip("."), tensor


def _own(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, ResidentLinear | ResidentEmbedding):
        yield "weight", part.weight
        bias = getattr(part, "bias", None)
        if bias is not None:
            yield "bias", bias
        return
    yield from ((name, value.detach()) for name, value in part.named_parameters(recurse=False))
    passing = part._non_persistent_buffers_set
    yield from ((name, value) for name, value in part.named_buffers(recurse=False) if name not in passing)


def _path_of(module: nn.Module, part: nn.Module) -> str:
    paths: dict[int, str] = {id(each): path for path, each in module.named_modules()}
    return paths[id(part)]
