"""What both sides tune: a causal model with random weights, and rows of text of many lengths."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

WORDS = ("time", "model", "of", "the", "a", "token", "is", "learned", "layer", "and", "weights", "in", "memory")
ROWS = 600
LENGTH = 512
"""Tokens of a row at most."""
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    keys: int
    inner: int
    vocabulary: int = 32_000
    dtype: str = "float32"


SHAPES = {
    "tiny": Shape(128, 2, 4, 2, 256, 1000),
    "30m": Shape(320, 8, 5, 5, 864),
    "135m": Shape(576, 30, 9, 3, 1536, 49_152),
    "1b": Shape(2048, 22, 32, 4, 5632, dtype="bfloat16"),
}


def prepare(folder: Path, name: str) -> tuple[Path, Path]:
    """The model's folder and that of its data, made once."""
    model, data = folder / f"tune-{name}", folder / "tune-data"
    if not (model / "config.json").exists():
        _model(SHAPES[name], model)
    if not (data / "rows.jsonl").exists():
        data.mkdir(parents=True, exist_ok=True)
        (data / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in _texts()))
    return model, data


def _model(shape: Shape, folder: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.keys, intermediate_size=shape.inner,
        max_position_embeddings=2048, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    transformers.set_seed(0)
    transformers.AutoModelForCausalLM.from_config(config, dtype=shape.dtype).save_pretrained(folder)
    _tokenizer(shape.vocabulary).save_pretrained(folder)


def _tokenizer(size: int) -> Any:
    """Words of the rows; the rest of the vocabulary are names, so that every token has a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>"]
    made.train_from_iterator(
        _texts(), trainers.BpeTrainer(vocab_size=900, special_tokens=special, initial_alphabet=alphabet)
    )
    made.add_tokens([f"<{number}>" for number in range(made.get_vocab_size(), size)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def _texts() -> list[str]:
    """Lengths as those of instructions and answers: most are short, a few as long as a row may be."""
    chance = random.Random(0)
    lengths = [min(LENGTH - 8, max(8, int(chance.lognormvariate(4.2, 0.8)))) for _ in range(ROWS)]
    return [" ".join(chance.choice(WORDS) for _ in range(length)) for length in lengths]
