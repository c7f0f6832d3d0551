"""A stored model as one GGUF file, for llama.cpp and all that reads its files.

Layers that a kind of block holds to the last bit keep their numbers, whoever quantized them; whatever else is quantized
becomes 16 bits, unless another width is asked for. Memory: a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument, BadModel, NotSupported

from ..contract import ModelSource, ProgressSink
from ..engine import checkpoint
from ..engine.quantized import folder as stored
from ..formats import foreign, gguf, gguf_blocks, gguf_facts, gguf_vocabulary
from ..ops.quantized import QuantizedWeight
from . import shards
from .kinds import options_of
from .shards import Tensors

FILE = "model.gguf"
FORMATS: Mapping[str, str] = {"gguf": "", "gguf-f16": "F16", "gguf-q8_0": "Q8_0", "gguf-q4_0": "Q4_0"}
"""What matrices are written as; with none, each keeps its width."""
TABLES = ("token_embd.weight", "output.weight")
"""Which have 8 bits at least."""
TOKENIZER, SETTINGS, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
WEIGHT = ".weight"


class Weights:
    """The weights of a stored model by their names in the module, of shapes `shapes`, quantized where they are stored
    so.

    Raises NotSupported for a checkpoint that is quantized in a way that is not known.
    """

    def __init__(self, source: ModelSource, tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._tensors, self._shapes = tensors, shapes
        self._layers: Mapping[str, Any] = {}
        self._schemes: Mapping[str, Any] = {}
        told = shards.config_of(source).get(stored.KEY)
        if told and told.get("quant_method") == stored.METHOD:
            self._schemes = stored.read(source.path, told).modules
        elif told:
            self._layers = foreign.read(source.path, told, tensors).layers

    def __contains__(self, name: str) -> bool:
        layer = name.removesuffix(WEIGHT)
        return layer in self._layers or layer in self._schemes or name in self._tensors

    def read(self, name: str) -> QuantizedWeight | Tensor:
        """Values in float32, or as they are quantized."""
        layer = name.removesuffix(WEIGHT)
        if layer in self._layers:
            found: QuantizedWeight | Tensor = self._layers[layer].read()
            return found
        if layer not in self._schemes:
            return self._tensors.read(name).float()
        scheme = self._schemes[layer]
        shift = self._tensors.read(f"{layer}.shift") if scheme.shift else None
        numbers, scale = self._tensors.read(f"{layer}.numbers"), self._tensors.read(f"{layer}.scale")
        stored = QuantizedWeight(scheme, numbers, scale, shift, self._shapes[name][1])
        stored.check(layer)
        return stored


@dataclass(frozen=True)
class Entry:
    """A tensor of the file: its name there and in the module, shape, kind of numbers, and the order of its rows."""

    name: str
    source: str
    shape: tuple[int, ...]
    kind: str
    order: Tensor | None
    widened: bool
    """Whether it is quantized in a way that no kind of block holds to the last bit, and is not any more in the file."""

    def data(self, weights: Weights) -> Any:
        """The bytes, as the writer takes them."""
        value = weights.read(self.source)
        if isinstance(value, QuantizedWeight):
            value = value if self.order is None else value.rows(self.order)
            if gguf_blocks.exact(value) == self.kind:
                return gguf_blocks.encoded(value, self.kind)
            return gguf_blocks.rounded(value.dequantized(), self.kind)
        return gguf_blocks.rounded(value if self.order is None else value[self.order], self.kind)


def run(
    sources: Sequence[ModelSource], recipe: Mapping[str, Any], folder: Path, progress: ProgressSink
) -> Mapping[str, Any]:
    """Write `model.gguf` into a folder; see `kinds.Run`.

    Raises:
        BadArgument: another format, or an option.
        BadModel: a tensor is missing.
        NotSupported: an architecture or tokenizer that GGUF does not know, or no package `gguf`.
    """
    options_of(recipe, {})
    format = str(recipe.get("format") or "gguf")
    if format not in FORMATS:
        said = f"there is no export to {format!r}; {suggest(format, FORMATS)}"
        raise BadArgument(said, name="format", got=format, want=", ".join(FORMATS))
    source = sources[0]
    config, shapes = _shapes(source)
    with shards.opened(source) as tensors:
        weights = Weights(source, tensors, shapes)
        entries = list(_entries(source, config, shapes, weights, FORMATS[format]))
        note = _write(folder / FILE, source, config, entries, weights, FORMATS[format], progress)
    kinds = sorted({entry.kind for entry in entries if len(entry.shape) > 1})
    notes = [each for each in (note, _widened(entries, FORMATS[format])) if each]
    metrics: dict[str, Any] = {"bytes": (folder / FILE).stat().st_size, "kinds": kinds}
    metrics |= {"note": "; ".join(notes)} if notes else {}
    return {"format": format, "metrics": metrics}


def _shapes(source: ModelSource) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The configuration, and the shapes of the module's weights. Raises NotSupported."""
    try:
        import gguf as _package  # noqa: F401
    except ImportError as error:
        why = "no package gguf"
        raise NotSupported("GGUF cannot be written: install llmos[formats] where the kernel runs", why=why) from error
    from transformers import AutoConfig, AutoModelForCausalLM

    causal: Any = AutoModelForCausalLM
    with checkpoint.folder_of(source) as folder:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
    gguf_facts.check(config)
    config.__dict__.pop(stored.KEY, None)
    with torch.device("meta"):
        module = causal.from_config(config)
    return config, {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _entries(
    source: ModelSource, config: Any, shapes: Mapping[str, tuple[int, ...]], weights: Weights, kind: str
) -> Iterator[Entry]:
    """All tensors of the file. Where the output layer is tied to the table, whichever is stored is the table."""
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    for name, place in gguf.places(config.model_type, config.num_hidden_layers, shapes).items():
        if config.tie_word_embeddings and place == head:
            continue
        found = head if place == table and config.tie_word_embeddings and table not in weights else place
        if found not in weights:
            raise BadModel(f"{source.path} has no tensor {found}", file=checkpoint.SINGLE, why=f"has no tensor {found}")
        order = None
        if config.model_type == "llama":
            order = gguf.halves_order(name, shapes[place][0], config.num_attention_heads, config.num_key_value_heads)
        value = weights.read(found)
        chosen = _kind(name, value, kind)
        widened = isinstance(value, QuantizedWeight) and not chosen.startswith("Q")
        yield Entry(name, found, shapes[place], chosen, order, widened)


def _widened(entries: Sequence[Entry], wanted: str) -> str:
    """What is to be told about quantized layers that became 16 bits although nobody asked for it."""
    names = [entry.source.removesuffix(WEIGHT) for entry in entries if entry.widened]
    if not names or wanted:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more} became 16 bits: no kind of block holds their numbers and scales to the last bit"


def _kind(name: str, value: QuantizedWeight | Tensor, wanted: str) -> str:
    """What a tensor is written as."""
    if isinstance(value, Tensor) and value.dim() < 2:
        return "F32"
    wanted = "Q8_0" if wanted == "Q4_0" and name in TABLES else wanted
    ins = value.ins if isinstance(value, QuantizedWeight) else value.shape[1]
    if wanted.startswith("Q") and ins % gguf_blocks.BLOCK == 0:
        return wanted
    if isinstance(value, QuantizedWeight):
        return (gguf_blocks.exact(value) if not wanted else "") or gguf_blocks.wide_kind(value.dequantized())
    return gguf_blocks.wide_kind(value)


def _write(
    path: Path, source: ModelSource, config: Any, entries: Sequence[Entry], weights: Weights, kind: str,
    progress: ProgressSink,
) -> str:  # fmt: skip
    """Write the file; what is to be told about its tokenizer."""
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, config.model_type)
    gguf_facts.describe(writer, config, Path(source.path).name, kind)
    note = _tokens(writer, source, config)
    factors = gguf_facts.factors(config)
    if factors is not None:
        writer.add_tensor_info(gguf_facts.FACTORS, factors.shape, factors.numpy().dtype, factors.nbytes)
    for entry in entries:
        known, size = GGMLQuantizationType[entry.kind], gguf_blocks.size_of(entry.shape, entry.kind)
        writer.add_tensor_info(entry.name, entry.shape, np.dtype(np.float32), size, known)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors.numpy())
    for done, entry in enumerate(entries):
        progress(done, len(entries), "tensors", "export")
        writer.write_tensor_data(entry.data(weights))
    writer.close()
    return note


def _tokens(writer: Any, source: ModelSource, config: Any) -> str:
    from transformers import PreTrainedTokenizerFast

    if checkpoint.find(source, TOKENIZER) is None:
        writer.add_tokenizer_model("none")
        return f"there is no {TOKENIZER}, so the file has no vocabulary: it takes token ids alone"
    plain: Any = PreTrainedTokenizerFast
    with checkpoint.folder_of(source) as folder:
        vocabulary = gguf_vocabulary.read((folder / TOKENIZER).read_text(encoding="utf-8"), config.vocab_size)
        around = plain(tokenizer_file=str(folder / TOKENIZER))("")["input_ids"]
    vocabulary.add_to(writer)
    gguf_facts.ends(writer, config, around, around)
    if template := _template(source):
        writer.add_chat_template(template)
    return vocabulary.note


def _template(source: ModelSource) -> str:
    found = checkpoint.find(source, TEMPLATE)
    if found is not None:
        return found.path.read_text(encoding="utf-8")
    if checkpoint.find(source, SETTINGS) is None:
        return ""
    template = checkpoint.read_json(source, SETTINGS).get("chat_template")
    return template if isinstance(template, str) else ""
