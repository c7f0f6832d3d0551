"""Which types there are, which of them cannot be tried and why, and which stand for the families in every test run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.models.auto import modeling_auto

from .overrides import FULL, SLIDING

CAUSAL: tuple[str, ...] = tuple(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

_DRAFT = "a draft head: it takes hidden states and keys of the model that it drafts for, not token ids alone"
_AUDIO = (
    "AutoModelForCausalLM maps the configuration of the whole to a class that takes the one of its decoder; what the "
    "decoder continues is audio codes, not text"
)

IMPOSSIBLE: Mapping[str, str] = {
    "gemma3n": "its vision tower needs the package timm; its text model is gemma3n_text",
    "gemma4_assistant": _DRAFT,
    "gemma4_unified_assistant": _DRAFT,
    "musicgen": _AUDIO,
    "musicgen_melody": _AUDIO,
    "prophetnet": "generate hands it position ids that its own check refuses",
}
"""Types of which no model can be made here, or that the library itself cannot generate with."""

WIDE = 32
"""A window that a look at a few tokens does not reach, and the test's answers do."""

VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "falcon, ALiBi": ("falcon", {"alibi": True}),
    "falcon, new decoder": ("falcon", {"new_decoder_architecture": True, "multi_query": False}),
    "gpt_neox, sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "llama, yarn": ("llama", {"rope_parameters": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}}),
    "llama, llama3 frequencies": ("llama", {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}}),
    "phi3, long frequencies": ("phi3", {"rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "long_factor": [2.0] * 8,
        "short_factor": [1.0] * 8, "original_max_position_embeddings": 32}}),
    "qwen3, all layers full": ("qwen3", {"layer_types": [FULL, FULL], "use_sliding_window": False}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "olmo2, bias": ("olmo2", {"attention_bias": True}),
    "qwen2_moe, wide window": ("qwen2_moe", {"sliding_window": WIDE}),
    "phimoe, wide window": ("phimoe", {"sliding_window": WIDE}),
    "mistral, wide window": ("mistral", {"sliding_window": WIDE}),
    "gpt_oss, wide window": ("gpt_oss", {"sliding_window": WIDE}),
    "llama4_text, wide chunks": ("llama4_text", {"attention_chunk_size": WIDE, "floor_scale": WIDE}),
    "gemma3_text, full first": ("gemma3_text", {"layer_types": [FULL, SLIDING]}),
}  # fmt: skip
"""Settings of common types that take another way through their code."""

SAMPLE: tuple[str, ...] = (
    "afmoe", "bart", "bert", "cohere2", "deepseek_v2", "diffllama", "ernie4_5_moe", "exaone4", "falcon_h1",
    "gemma3n_text", "gemma4_text", "glm4", "gpt_bigcode", "gpt_neo", "gpt_oss", "granitemoe", "internlm3", "jamba",
    "lfm2", "llama", "mamba", "minicpm3", "minimax", "mpt", "nemotron", "persimmon", "phimoe", "recurrent_gemma",
    "rwkv", "whisper",
)  # fmt: skip
"""Of many families and of every rung, most of them tried nowhere else: what each test run tries."""
