"""How transformers is told about quantized folders: by its own extension, so that shards, tied weights and names of
older checkpoints stay its business.

Linear layers that a folder names are replaced by empty ones of quantized weights before anything is read; those of a
model that is quantized while it is loaded are replaced one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from ...ops.quantized import Scheme
from ...quant.rule import Wish
from . import folder
from .quantizing import Quantize, Report, apart, chosen
from .stored import PARTS, StoredEmbedding, StoredLinear, empty

SCALES = torch.float16
"""What scales are mostly stored as; those that are not stay what they are."""
SMALL_BYTES = 1 << 16
"""Norms and biases."""


@register_quantization_config(folder.METHOD)
class Config(QuantizationConfigMixin):
    """The library's view of `quantization_config`."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)


class Wanted(Config):
    """What is to be quantized while it is loaded; `report` is called every moment."""

    def __init__(self, wish: Wish, report: Report) -> None:
        super().__init__(quant_method=folder.METHOD, wish=wish, report=report)

    def __deepcopy__(self, memo: object) -> Wanted:
        """The library copies configurations with all that is in them."""
        return self


@register_quantizer(folder.METHOD)
class Quantizer(HfQuantizer):
    """Loads folders of quantized weights, and quantizes others."""

    quantization_config: Any
    _quantize: Quantize

    def _process_model_before_weight_loading(self, model: Any, checkpoint_files: Sequence[str] = (), **_: Any) -> None:
        if self.pre_quantized:
            put(model, {name: Scheme(**scheme) for name, scheme in self.quantization_config.modules.items()})
            return
        schemes = chosen(model, self.quantization_config.wish)
        alike = {
            head: names
            for head, names in tied(model, schemes).items()
            if not any(apart(checkpoint_files, f"{head}.weight", f"{name}.weight") for name in names)
        }
        self._quantize = Quantize(schemes, alike, self.quantization_config.report)

    def param_needs_quantization(self, model: Any, param_name: str, **_: Any) -> bool:
        return not self.pre_quantized and self._quantize.wants(param_name)

    def get_quantize_ops(self) -> Quantize:
        return self._quantize

    def get_new_dtype(self, converter: Any, param: Any, dtype: torch.dtype | None) -> torch.dtype | None:
        """Numbers and scales are as they are stored."""
        return None if converter.target_patterns[0].rpartition(".")[2] in PARTS else dtype

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> None:
        """Nothing of the loading stays with the model, nor of the files what would keep whole pages of them for a few
        numbers."""
        for part in model.parameters():
            if part.nbytes <= SMALL_BYTES:
                part.data = part.data.clone()
        self.remove_quantization_config(model)  # type: ignore[no-untyped-call]

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return False


def put(model: Any, modules: Mapping[str, Scheme], scales: Mapping[str, torch.dtype] | None = None) -> None:
    """Put empty layers of quantized weights in place of a model's linear layers, which are on the meta device, and
    have embeddings that are tied to one read its rows. `scales`: the dtypes of scales that are not what most are.

    Raises ValueError for a name that is none of its linear layers, or an embedding that cannot.
    """
    for name, scheme in modules.items():
        part = model.get_submodule(name) if name in dict(model.named_modules()) else None
        if type(part) is not nn.Linear:
            raise ValueError(f"{name} is quantized, but is no linear layer of {type(model).__name__}")
        model.set_submodule(name, empty(scheme, part, (scales or {}).get(name, SCALES)))
    for head, embeddings in tied(model, modules).items():
        for name in embeddings:
            model.set_submodule(name, StoredEmbedding(model.get_submodule(head), model.get_submodule(name)))


def tied(model: Any, modules: Mapping[str, Scheme]) -> dict[str, list[str]]:
    """The embeddings that share the weights of a quantized layer, by its name; the library ties them no more."""
    groups: dict[str, list[str]] = {}
    for target, source in model.all_tied_weights_keys.items():
        groups.setdefault(source, [source]).append(target)
    found: dict[str, list[str]] = {}
    for keys in groups.values():
        names = [key.removesuffix(".weight") for key in keys]
        head = next((name for name in names if name in modules), None)
        if head is not None:
            found[head] = [name for name in names if name != head]
            for key in keys:
                model.all_tied_weights_keys.pop(key, None)
    return found


def stored(module: nn.Module) -> list[tuple[str, StoredLinear]]:
    """The layers of quantized weights in a module, by name."""
    return [(name, part) for name, part in module.named_modules() if isinstance(part, StoredLinear)]
