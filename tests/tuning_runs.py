"""Tiny models to train, and batches without a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import peft
import torch
import transformers
from torch import nn

from llmos.drivers.tuning.data.batches import Batches
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.recipe import Recipe

VOCABULARY = 24


def llama(dropout: float = 0.0, layers: int = 2, size: int = 16, vocabulary: int = VOCABULARY) -> Any:
    """A causal model with random weights."""
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=size, intermediate_size=2 * size, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128, attention_dropout=dropout,
        initializer_range=0.2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(1)
    return transformers.LlamaForCausalLM(config)


def lora(model: Any, dropout: float = 0.0, **more: Any) -> nn.Module:
    """The model with LoRA on queries and values, neither part of it at 0."""
    settings = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules=["q_proj", "v_proj"], **more)
    torch.manual_seed(2)
    made: nn.Module = peft.get_peft_model(model, settings)
    return made


def sentences(count: int, seed: int = 0, longest: int = 12) -> list[Example]:
    """Numbers that count up from a random one: what comes next can be known."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        first, length = torch.randint(3, VOCABULARY, (2,), generator=generator).tolist()
        tokens = [3 + (first + n) % (VOCABULARY - 3) for n in range(4 + length % (longest - 3))]
        made.append(Example(tokens, tokens))
    return made


def recipe(**fields: Any) -> Recipe:
    fields = {"batch_size": 2, "learning_rate": 1e-2, "max_length": 24, **fields}
    return Recipe.of({"method": "lora", **fields})


def batches(made: Recipe, examples: Sequence[Example] | None = None) -> Batches:
    return Batches(examples or sentences(16), made)
