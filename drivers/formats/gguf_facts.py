"""What a GGUF file says about its model, from the configuration of transformers: Llama, Qwen2 and Qwen3."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import NotSupported

ARCHITECTURES = ("llama", "qwen2", "qwen3")
KINDS = {"": "MOSTLY_F16", "F16": "MOSTLY_F16", "Q8_0": "MOSTLY_Q8_0", "Q4_0": "MOSTLY_Q4_0"}
"""What a file of such matrices is called."""
FACTORS = "rope_freqs.weight"


def check(config: Any) -> None:
    """Raises NotSupported for a model that GGUF's architecture of that name does not compute."""
    why = ""
    if config.model_type not in ARCHITECTURES:
        why = f"the architecture {config.model_type}: exported are {', '.join(ARCHITECTURES)}"
    elif config.hidden_act != "silu":
        why = f"the activation {config.hidden_act}, where llama.cpp computes silu"
    elif getattr(config, "use_sliding_window", False):
        why = "a sliding window, which llama.cpp does not compute in this architecture"
    elif config.rope_parameters["rope_type"] not in ("default", "linear", "llama3"):
        why = f"rotary positions of the kind {config.rope_parameters['rope_type']}"
    if why:
        raise NotSupported(f"a model with {why}, cannot be exported to GGUF", why=why)


def describe(writer: Any, config: Any, name: str, kind: str) -> None:
    """Write sizes and settings; `kind` is that of most matrices (a key of `KINDS`)."""
    from gguf import LlamaFileType, RopeScalingType

    head = head_size(config)
    writer.add_name(name)
    writer.add_file_type(LlamaFileType[KINDS[kind]])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(config.rope_parameters["factor"]))


def head_size(config: Any) -> int:
    """Features of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def factors(config: Any) -> Tensor | None:
    """What each rotary frequency is divided by, [features of a head / 2] float32, for Llama 3; None for others."""
    if config.rope_parameters["rope_type"] != "llama3":
        return None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    size = len(frequencies)
    base = float(config.rope_parameters["rope_theta"]) ** -(torch.arange(size).float() / size)
    return base / frequencies.float()


def ends(writer: Any, config: Any, first: list[int], last: list[int]) -> None:
    """Tokens that begin and end texts: the model's, and whether its tokenizer puts them there by itself; `first` and
    `last` are what it puts around an empty text."""
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    if config.bos_token_id is not None:
        writer.add_bos_token_id(config.bos_token_id)
    if end is not None:
        writer.add_eos_token_id(end)
    if config.pad_token_id is not None:
        writer.add_pad_token_id(config.pad_token_id)
    writer.add_add_bos_token(config.bos_token_id in first)
    writer.add_add_eos_token(end in last)
