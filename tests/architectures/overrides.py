"""What the generic way of shrinking does not know, for each model type that needs more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DECODER = {"is_decoder": True}
_SLIDES = {"layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": True}
_MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_chunk_size": 8}
_SHARES_KV = {
    "num_hidden_layers": 4, "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
}  # fmt: skip
_ASSISTANT = {
    "num_hidden_layers": 2, "num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"],
    "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, "enable_moe_block": False,
    "use_double_wide_mlp": False,
}  # fmt: skip
_NOTE = {
    "index_n_heads": 8,    "num_key_value_heads": 4, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 16,
    "swa_kv_lora_rank": 16, "swa_head_dim": 16, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 16, "head_dim": 16,
}  # fmt: skip
_DSA = {"index_n_heads": 8}
_TEMPERED = {"floor_scale": 8, "no_rope_layers": [1, 0], "attn_temperature_tuning": True}
_QSA = {
    "indexer_n_heads": 8, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 8,
    "indexer_compress_ratio": 2, "hc_lowrank": 16, "hc_count": 2,
}  # fmt: skip

OVERRIDES: Mapping[str, Mapping[str, Any]] = {
    "axk2": _DSA, "deepseek_v32": _DSA, "glm_moe_dsa": _DSA, "hy_v4": _DSA,
    "bamba": {**_MAMBA2, "attn_layer_indices": [1], "num_hidden_layers": 2},
    "bert": _DECODER, "bert-generation": _DECODER, "big_bird": _DECODER, "camembert": _DECODER,
    "data2vec-text": _DECODER, "electra": _DECODER, "ernie": _DECODER, "megatron-bert": _DECODER, "rembert": _DECODER,
    "roberta": _DECODER, "roberta-prelayernorm": _DECODER, "roc_bert": {
        **_DECODER, "pronunciation_embed_dim": 16, "shape_embed_dim": 16, "shape_vocab_size": 320,
        "pronunciation_vocab_size": 320,
    }, "roformer": _DECODER, "xlm-roberta": _DECODER, "xlm-roberta-xl": _DECODER,
    "xmod": {**_DECODER, "default_language": "en_XX"},
    "blt": {"encoder_hash_byte_group_vocab": 50, "num_hidden_layers": 2},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "dots3_note": {
        "text_config": _NOTE, "vision_config": {"adapter_in_dim": 64, "adapter_out_dim": 64},
        "audio_config": {"adapter_out_dim": 64, "adapter_input_size": 64},
    }, "dots3_note_text": _NOTE,
    "falcon_h1": {**_MAMBA2, "mamba_d_ssm": 128},
    "gemma3n_text": _SHARES_KV,
    "gemma4_assistant": {"text_config": _ASSISTANT, "backbone_hidden_size": 64},
    "gemma4_unified_assistant": {"text_config": _ASSISTANT, "backbone_hidden_size": 64},
    "moshi": {"sliding_window": 128},
    "gemma4_text": _SHARES_KV, "gemma4": {"text_config": _SHARES_KV}, "gemma4_unified_text": _SHARES_KV,
    "gemma4_unified": {"text_config": _SHARES_KV},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {**_MAMBA2, "layer_types": ["linear_attention", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "llama4": {"text_config": _TEMPERED}, "llama4_text": _TEMPERED,
    "longcat_flash": {"head_dim": 8, "zero_expert_num": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 16, "chunk_size": 8},
    "qwen2": _SLIDES, "qwen2_moe": _SLIDES, "qwen3": _SLIDES, "smollm3": _SLIDES,
    "qwen4_exp": {"text_config": _QSA}, "qwen4_exp_text": _QSA,
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {**_DECODER, "attn_layers": ["local", "lsh"], "axial_pos_shape": (8, 16),
        "axial_pos_embds_dim": (32, 32), "local_attn_chunk_length": 8, "lsh_attn_chunk_length": 8, "num_buckets": 4,
        "hash_seed": 0,
    },
    "xlstm": {"chunk_size": 8, "num_heads": 2, "qk_dim_factor": 1.0},
    "zamba": {
        "num_hidden_layers": 4, "attention_hidden_size": 128, "attention_head_dim": 32,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
    "zaya": {"num_experts_per_tok": 1, "layer_types": ["hybrid", "hybrid_sliding"]},
}  # fmt: skip
