"""What the generic way of shrinking does not know, for each model type that needs more.

Mostly: all kinds of layers that a type has, where its default has one; and sizes that other sizes follow from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Changes = Mapping[str, Any]

FULL, SLIDING = "full_attention", "sliding_attention"

_DECODER: Changes = {"is_decoder": True}
_SLIDES: Changes = {"layer_types": [FULL, SLIDING], "use_sliding_window": True}
_MAMBA2: Changes = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_chunk_size": 8}
_SHARES_KV: Changes = {
    "num_hidden_layers": 4, "num_kv_shared_layers": 2, "layer_types": [SLIDING, FULL, SLIDING, FULL],
}  # fmt: skip
_INDEXED: Changes = {"index_n_heads": 8}
"""With few heads an indexer scores many keys with exactly 0, and which of them it picks is chance."""

_NOTE: Changes = {
    **_INDEXED, "num_key_value_heads": 4, "head_dim": 16, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 16, "swa_kv_lora_rank": 16, "swa_head_dim": 16, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 16,
}  # fmt: skip
_TEMPERED: Changes = {
    "floor_scale": 8, "no_rope_layers": [1, 0], "attn_temperature_tuning": True, "attention_chunk_size": 16,
}  # fmt: skip
_QWEN4: Changes = {
    "indexer_n_heads": 8, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 8,
    "indexer_compress_ratio": 2, "hc_lowrank": 16, "hc_count": 2,
}  # fmt: skip
_ROPE: Changes = {"rope_type": "default", "rope_theta": 10000.0}

OVERRIDES: Mapping[str, Changes] = {
    "axk2": _INDEXED,
    "bamba": {**_MAMBA2, "attn_layer_indices": [1], "num_hidden_layers": 2},
    "bert": _DECODER,
    "bert-generation": _DECODER,
    "big_bird": _DECODER,
    "blt": {
        "encoder_hash_byte_group_vocab": 50, "num_hidden_layers": 2, "encoder_config": {"hidden_size_global": 64},
        "decoder_config": {"hidden_size_global": 64},
    },
    "camembert": _DECODER,
    "cohere2_moe": {"mlp_layer_types": ["dense", "sparse"]},
    "cohere_compass_text": {"layer_types": [FULL, SLIDING], "rope_parameters": {FULL: _ROPE, SLIDING: _ROPE}},
    "data2vec-text": _DECODER,
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v32": _INDEXED,
    "deepseek_v4": {
        "num_hidden_layers": 3,
        "layer_types": ["heavily_compressed_attention", "compressed_sparse_attention", SLIDING],
        "mlp_layer_types": ["hash_moe", "moe", "moe"],
    },
    "dots1": {"layer_types": [FULL, SLIDING]},
    "dots3_note": {
        "text_config": _NOTE, "vision_config": {"adapter_in_dim": 64, "adapter_out_dim": 64},
        "audio_config": {"adapter_out_dim": 64, "adapter_input_size": 64},
    },
    "dots3_note_text": _NOTE,
    "electra": _DECODER,
    "ernie": _DECODER,
    "falcon_h1": {**_MAMBA2, "mamba_d_ssm": 128},
    "gemma3n_text": _SHARES_KV,
    "gemma4": {"text_config": _SHARES_KV},
    "gemma4_text": _SHARES_KV,
    "gemma4_unified": {"text_config": _SHARES_KV},
    "gemma4_unified_text": _SHARES_KV,
    "glm_moe_dsa": _INDEXED,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {**_MAMBA2, "layer_types": ["linear_attention", FULL]},
    "hy_v4": _INDEXED,
    "inkling2_text": {"log_scaling_n_floor": 8},
    "inkling_text": {"mlp_layer_types": ["dense", "sparse"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "laguna": {"layer_types": [FULL, SLIDING]},
    "lfm2": {"layer_types": ["conv", FULL]},
    "lfm2_moe": {"layer_types": ["conv", FULL]},
    "llama4": {"text_config": _TEMPERED},
    "llama4_text": _TEMPERED,
    "longcat_flash": {"head_dim": 8, "zero_expert_num": 2},
    "mamba2": {"num_heads": 8, "head_dim": 16, "chunk_size": 8},
    "megatron-bert": _DECODER,
    "mellum": {"layer_types": [FULL, SLIDING], "mlp_layer_types": ["dense", "sparse"]},
    "minimax_m3_vl_text": {
        "layer_types": [FULL, "minimax_m3_sparse"], "mlp_layer_types": ["dense", "sparse"], "index_block_size": 4,
        "index_topk_blocks": 2,
    },
    "ministral": {"layer_types": [FULL, SLIDING]},
    "ministral3": {"rope_parameters": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 16.0, "original_max_position_embeddings": 16,
        "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1}},
    # Its window is that of its cache alone, so that answers beyond it depend on how a prompt was split.
    "moshi": {"sliding_window": 128},
    "qwen2": _SLIDES,
    "qwen2_moe": _SLIDES,
    "qwen3": _SLIDES,
    "qwen4_exp": {"text_config": _QWEN4},
    "qwen4_exp_text": _QWEN4,
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {
        **_DECODER, "attn_layers": ["local", "lsh"], "axial_pos_shape": (8, 16), "axial_pos_embds_dim": (32, 32),
        "local_attn_chunk_length": 8, "lsh_attn_chunk_length": 8, "num_buckets": 4, "hash_seed": 0,
    },
    "rembert": _DECODER,
    "roberta": _DECODER,
    "roberta-prelayernorm": _DECODER,
    "roc_bert": {
        **_DECODER, "pronunciation_embed_dim": 16, "shape_embed_dim": 16, "shape_vocab_size": 320,
        "pronunciation_vocab_size": 320,
    },
    "roformer": _DECODER,
    "smollm3": {**_SLIDES, "no_rope_layers": [1, 0]},
    "xlm-roberta": _DECODER,
    "xlm-roberta-xl": _DECODER,
    "xlstm": {"chunk_size": 8, "num_heads": 2, "qk_dim_factor": 1.0},
    "xmod": {**_DECODER, "default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4, "attention_hidden_size": 128, "attention_head_dim": 32,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
    "zaya": {"num_experts_per_tok": 1, "layer_types": ["hybrid", "hybrid_sliding"]},
}  # fmt: skip
