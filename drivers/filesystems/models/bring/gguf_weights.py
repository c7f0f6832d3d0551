"""The configuration and the weights of a GGUF file as a folder of ours; quantized layers keep their numbers.

Read are the names and settings that transformers knows (`gguf_file=`); the weights are copied tensor by tensor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmos.drivers.contract import ProgressSink
from llmos.drivers.engine.mapped import FilePages
from llmos.drivers.engine.quantized.folder import KEY, Quantized
from llmos.drivers.formats import gguf
from llmos.drivers.formats.shards import Shards
from llmos.drivers.ops.quantized import QuantizedWeight, Scheme

from ..scan import bad

DTYPE = torch.bfloat16
WEIGHT = ".weight"
PERMUTED = "llama"
"""The architecture whose rows are in another order."""
FACTORS = "rope_freqs.weight"
"""What each frequency is divided by, where contexts were made longer."""
LLAMA_3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What all Llama 3.1 to 3.3 stretch their frequencies by, beside the factor."""


@dataclass(frozen=True)
class Written:
    """What became of a file: the schemes of the layers that keep their numbers."""

    modules: Mapping[str, Scheme]


def write(path: Path, name: str, folder: Path, architecture: str, keep: bool, progress: ProgressSink) -> Written:
    """Write configuration and weights of the file `path`, which errors call `name`, into a folder.

    Args:
        keep: layers keep their numbers where those are ours too; else all are dequantized to bfloat16.

    Raises:
        BadModel: tensors are missing, or of another shape than the configuration says.
        NotSupported: a tensor is of a kind that nobody reads.
    """
    from gguf import GGUFReader
    from transformers import AutoConfig, AutoModelForCausalLM

    causal: Any = AutoModelForCausalLM
    reader = GGUFReader(path)
    config: Any = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    head = reader.get_field(f"{architecture}.attention.key_length")
    if head is not None:  # which the library leaves out
        config.head_dim = int(head.contents())
    with torch.device("meta"):
        module: Any = causal.from_config(config, dtype=DTYPE)
    _stretch(name, config, reader)
    shards, modules, pages = Shards(folder), {}, FilePages([path])
    done, total = 0, sum(int(tensor.n_bytes) for tensor in reader.tensors)
    for tensor, place, value in _values(reader, module, name, architecture, keep):
        if isinstance(value, QuantizedWeight):
            modules[place.removesuffix(WEIGHT)] = value.scheme
            for part, data in (("numbers", value.numbers), ("scale", value.scale), ("shift", value.shift)):
                if data is not None:
                    shards.add(f"{place.removesuffix(WEIGHT)}.{part}", data)
        else:
            shards.add(place, value.to(DTYPE))
        pages.trim()
        done += int(tensor.n_bytes)
        progress(done, total, "bytes", "convert")
    shards.close()
    _describe(folder, module, config, modules)
    return Written(modules)


def _values(
    reader: Any, module: Any, name: str, architecture: str, keep: bool
) -> Iterator[tuple[Any, str, QuantizedWeight | torch.Tensor]]:
    """Each tensor of the file with its name in the module, and its values."""
    config = module.config
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    linear = {f"{path}{WEIGHT}" for path, part in module.named_modules() if type(part) is nn.Linear}
    places = gguf.places(architecture, config.num_hidden_layers, shapes)
    head, table = next(iter(module.all_tied_weights_keys.items())) if config.tie_word_embeddings else ("", "")
    missing = set(shapes) - {head}
    for tensor in reader.tensors:
        place = places.get(tensor.name)
        if place is None:
            continue
        shape = tuple(reversed(tensor.shape.tolist()))
        if shape != shapes[place]:
            raise bad(name, f"has {tensor.name} of {shape}, its configuration says {shapes[place]}; copy it again")
        order = None
        if architecture == PERMUTED:
            order = gguf.row_order(tensor.name, shape[0], config.num_attention_heads, config.num_key_value_heads)
        target = head if place == table else place
        value = gguf.read(tensor, order, keep and target in linear)
        missing.discard(place)
        yield tensor, target if isinstance(value, QuantizedWeight) else place, value
    if missing:
        raise bad(name, f"lacks {', '.join(sorted(missing)[:3])}; copy the file again")


def _stretch(name: str, config: Any, reader: Any) -> None:
    """Put the factors of frequencies into the configuration, which the library leaves out."""
    found = next((tensor for tensor in reader.tensors if tensor.name == FACTORS), None)
    if found is None:
        return
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    factors = torch.from_numpy(found.data.copy()).float().flatten()
    plain = {**config.rope_parameters, "rope_type": "default"}
    base = float(plain["rope_theta"]) ** -(torch.arange(len(factors)).float() / len(factors))
    config.rope_parameters = {**plain, **LLAMA_3, "rope_type": "llama3", "factor": round(float(factors.max()), 4)}
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    if not torch.allclose(base / frequencies, factors, rtol=1e-3):
        raise bad(name, f"{FACTORS} stretches frequencies in a way that is not that of Llama 3; it is not converted")


def _describe(folder: Path, module: Any, config: Any, modules: Mapping[str, Scheme]) -> None:
    config.architectures, config.dtype = [type(module).__name__], DTYPE
    config.save_pretrained(folder)
    module.generation_config.save_pretrained(folder)
    if modules:
        path = folder / "config.json"
        whole = json.loads(path.read_text())
        whole[KEY] = Quantized(modules).as_config()
        path.write_text(json.dumps(whole, indent=2) + "\n")
