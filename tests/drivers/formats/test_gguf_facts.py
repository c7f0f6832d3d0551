"""What a file says of its model: refusals with the reason, and the factors of Llama 3."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from llmos.drivers.formats import gguf_facts
from llmos.syscalls.errors import NotSupported
from transformers import GPT2Config, LlamaConfig, Qwen2Config

ROPE = {"rope_theta": 1e4}
LLAMA_3 = {
    **ROPE, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (GPT2Config(), "gpt2"), (LlamaConfig(hidden_act="gelu"), "gelu"),
        (Qwen2Config(use_sliding_window=True), "sliding window"),
        (LlamaConfig(rope_parameters={**ROPE, "rope_type": "dynamic", "factor": 2.0}), "dynamic"),
    ],
)  # fmt: skip
def test_what_gguf_does_not_know_is_refused(config: Any, why: str) -> None:
    with pytest.raises(NotSupported, match=why):
        gguf_facts.check(config)


def test_frequencies_of_llama_3_are_divided_by_factors() -> None:
    config = LlamaConfig(hidden_size=256, num_attention_heads=4, rope_parameters=LLAMA_3)
    gguf_facts.check(config)
    factors = gguf_facts.factors(config)
    assert factors is not None and factors.shape == (32,)
    assert torch.allclose(factors[:8], torch.ones(8)) and torch.allclose(factors[-8:], torch.full((8,), 8.0))
    assert bool((factors.diff() >= -1e-5).all())
    assert gguf_facts.factors(LlamaConfig(rope_parameters={**ROPE, "rope_type": "default"})) is None
