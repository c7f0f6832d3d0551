"""Writes a model in 16 bits as GGUF, with the `gguf` package: a Qwen2 or a Llama that transformers has saved.

Most benches speak in token ids and need no vocabulary inside.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

ARCHITECTURES = {"qwen2": gguf.MODEL_ARCH.QWEN2, "llama": gguf.MODEL_ARCH.LLAMA}
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def write(
    folder: Path, target: Path, *, vocabulary: bool = False, tokens: Callable[[gguf.GGUFWriter], None] | None = None
) -> None:
    """Convert the model of a folder; with its vocabulary for peers that speak in text, or with what `tokens` adds.

    Raises:
        KeyError: another architecture, or a tensor that has no name there.
    """
    config = json.loads((folder / "config.json").read_text())
    kind = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(target, gguf.MODEL_ARCH_NAMES[kind])
    _describe(writer, config)
    if tokens is not None:
        tokens(writer)
    elif vocabulary:
        _add_vocabulary(writer, folder)
    else:
        writer.add_vocab_size(config["vocab_size"])
        writer.add_tokenizer_model("none")
    names = gguf.get_tensor_name_map(kind, config["num_hidden_layers"])
    for name, values in tensors(folder):
        if kind is gguf.MODEL_ARCH.LLAMA and name.endswith(("q_proj.weight", "k_proj.weight")):
            values = interleaved(values, config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"])
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise KeyError(name)
        writer.add_tensor(found, values.astype(np.float16) if values.ndim > 1 else values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(folder: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """All tensors of the safetensors files in a folder, as float32; numpy itself knows no bfloat16."""
    for path in sorted(folder.glob("*.safetensors")):
        raw = np.memmap(path, np.uint8, "r")
        (size,) = struct.unpack("<Q", raw[:8].tobytes())
        for name, about in json.loads(raw[8 : 8 + size].tobytes()).items():
            if name == "__metadata__":
                continue
            start, end = (8 + size + offset for offset in about["data_offsets"])
            values = raw[start:end].view(DTYPES[about["dtype"]]).reshape(about["shape"])
            if about["dtype"] == "BF16":
                values = (values.astype(np.uint32) << 16).view(np.float32)
            yield name, values.astype(np.float32)


def interleaved(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of each head in the order of GGUF's Llama, whose rotary pairs are neighbours and not halves apart."""
    outs, ins = weight.shape
    return weight.reshape(heads, 2, outs // heads // 2, ins).swapaxes(1, 2).reshape(outs, ins)


def _describe(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_vocabulary(writer: gguf.GGUFWriter, folder: Path) -> None:
    """The tokens of a byte-level tokenizer without merges; a file needs one merge, so it gets one that never happens.

    The last token ends an answer, since some token has to.
    """
    known = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    tokens = sorted(known, key=lambda token: int(known[token]))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges([f"{tokens[-1]} {tokens[-1]}"])
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    template = json.loads((folder / "tokenizer_config.json").read_text()).get("chat_template")
    if template:
        writer.add_chat_template(template)
