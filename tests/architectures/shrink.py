"""A configuration of any architecture, made tiny: every size by the name of its field, every kind of layer kept.

It needs nothing but the configuration class; what it cannot guess stands in `overrides`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import transformers

from .overrides import OVERRIDES

VOCABULARY = 320
CONTEXT = 128
WINDOW = 12
HIDDEN, INNER, HEADS, KV_HEADS, HEAD, ROTARY = 64, 96, 4, 2, 16, 8
LAYERS = 2
EXPERTS, CHOSEN, EXPERT_INNER = 4, 2, 32

_NAMES: Sequence[tuple[int, str]] = (
    (VOCABULARY, "vocab_size vocab_size_per_layer_input"),
    (CONTEXT, """max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions
        model_max_length"""),
    (WINDOW, """sliding_window window_size attention_window_size attention_chunk_size sliding_window_size
        local_attention local_attention_window_len"""),
    (HIDDEN, """hidden_size d_model n_embd emb_dim embedding_dim word_embed_proj_dim embedding_size
        attention_hidden_size input_embedding_size output_embedding_size lru_width cross_attention_hidden_size
        router_hidden_size mamba_d_ssm backbone_hidden_size"""),
    (INNER, """intermediate_size ffn_dim n_inner ffn_hidden_size dim_ff dff d_inner decoder_ffn_dim encoder_ffn_dim
        dense_intermediate_size intermediate_size_mlp feed_forward_size"""),
    (HEADS, """num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads
        attention_heads num_decoder_attention_heads num_encoder_attention_heads linear_num_value_heads
        linear_num_heads n_mamba_heads index_n_heads num_query_groups swa_num_attention_heads"""),
    (KV_HEADS, """num_key_value_heads num_kv_heads linear_num_key_heads num_global_key_value_heads
        swa_num_key_value_heads"""),
    (HEAD, """head_dim global_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim kv_channels d_kv
        d_head v_head_dim dim_head mamba_d_head mamba_head_dim mamba_headdim attention_head_dim index_head_dim
        kv_lora_rank q_lora_rank attention_head_size swa_head_dim swa_v_head_dim o_lora_rank laurel_rank
        hidden_size_per_layer_input state_size mamba_d_state ssm_state_size chunk_size mamba_chunk_size
        time_step_rank mamba_dt_rank query_pre_attn_scalar"""),
    (ROTARY, "qk_rope_head_dim qk_nope_head_dim rotary_dim mamba_n_heads mamba_num_heads index_topk"),
    (LAYERS, """num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers
        num_encoder_layers num_blocks n_groups mamba_n_groups mamba_ngroups"""),
    (EXPERTS, "num_experts n_routed_experts num_local_experts moe_num_experts"),
    (CHOSEN, "num_experts_per_tok moe_topk moe_k num_experts_per_token top_k_experts"),
    (EXPERT_INNER, """moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size
        shared_intermediate_size moe_shared_expert_intermediate_size expert_ffn_hidden_size moe_latent_size"""),
    (1, """n_group topk_group num_expert_group num_dense_layers first_k_dense_replace n_shared_experts
        num_shared_experts moe_num_shared_experts num_nextn_predict_layers"""),
    (0, "bos_token_id"),
    (1, "eos_token_id"),
    (3, "pad_token_id pad_index"),
)  # fmt: skip
SIZES: Mapping[str, int] = {name: size for size, names in _NAMES for name in names.split()}

PATTERNS = ("layer_types", "mlp_layer_types", "layers_block_type")
"""Fields that name the kind of each layer."""

DEPTHS = ("num_hidden_layers", "n_layer", "num_layers")


def tiny_config(name: str, **changes: Any) -> Any:
    """The configuration of one of the library's model types, with a vocabulary of VOCABULARY tokens."""
    kind = transformers.CONFIG_MAPPING[name]
    return kind(**_arguments(kind, {**OVERRIDES.get(name, {}), **changes}))


def _arguments(kind: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What makes an instance tiny. A mapping in `given` changes a part that is a configuration of its own."""
    example = kind()
    fields = {field.name for field in dataclasses.fields(kind)}
    sizes = {name: size for name, size in SIZES.items() if name in fields}
    patterns = {name: _kinds(getattr(example, name, None)) for name in PATTERNS if name in fields}
    layers = max([LAYERS, *(len(found) for found in patterns.values())])
    sizes |= {name: layers for name in DEPTHS if name in sizes}
    if "kv_lora_rank" in sizes and "num_key_value_heads" in sizes:
        sizes["num_key_value_heads"] = HEADS  # latent attention expands keys to all heads
    parts = {
        name: _arguments(type(part), given.get(name, {}))
        for name, part in vars(example).items()
        if isinstance(part, transformers.PreTrainedConfig) and name in fields
    }
    return {
        **sizes,
        **{name: [*found, *[found[-1]] * (layers - len(found))] for name, found in patterns.items() if found},
        **{name: value for name, value in given.items() if name not in parts},
        **parts,
    }


def _kinds(pattern: Any) -> list[str]:
    """The different kinds of layers, in order of their first."""
    return list(dict.fromkeys(pattern)) if isinstance(pattern, Iterable) else []
