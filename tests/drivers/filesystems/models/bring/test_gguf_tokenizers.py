"""GGUF files with a vocabulary: the tokenizer that comes out splits texts as the one that went in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from llmos.drivers.contract import ModelSource, SourceFile
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from perf.peers.gguf_file import ARCHITECTURES, write
from tiny_models import CHAT_TEMPLATE, TEXTS, byte_fallback
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

pytestmark = pytest.mark.slow

OpenModels = Callable[..., ModelsFileSystem]
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
"""Of the models' own tokenizer.json: they differ in how many digits stand together."""
SPECIAL = ("<|begin|>", "<|im_end|>")
END = "<|endoftext|>"
"""Which every Qwen has, and the library's class for it takes for granted."""
SAMPLES = (*TEXTS, "  the  fox 1234567\n\n\tit's", "the dog<|im_end|>the", "x" * 40, " 😀 über ", f"a {END} b")


def byte_level(split: str, *more: str) -> Any:
    """As Llama 3 and Qwen: every byte has a token, words are cut out by a pattern."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=[*SPECIAL, *more], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([*TEXTS, "12 123 1234 12345 123456"] * 3, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[1], chat_template=CHAT_TEMPLATE
    )


def described(tokenizer: Any, model: str, pre: str) -> Callable[[gguf.GGUFWriter], None]:
    """What llama.cpp's converter writes of a tokenizer."""
    told = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)

    def kind(name: str) -> gguf.TokenType:
        if name in tokenizer.all_special_tokens:
            return gguf.TokenType.UNKNOWN if name == tokenizer.unk_token else gguf.TokenType.CONTROL
        return gguf.TokenType.BYTE if name.startswith("<0x") else gguf.TokenType.NORMAL

    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model(model)
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(names)
        writer.add_token_types([kind(name) for name in names])
        if model == "llama":
            writer.add_token_scores([-float(at) for at in range(len(names))])
        else:
            writer.add_token_merges([" ".join(pair) for pair in told["merges"]])
        writer.add_bos_token_id(tokenizer.bos_token_id)
        writer.add_eos_token_id(tokenizer.eos_token_id)
        writer.add_add_bos_token(model == "llama")
        if tokenizer.chat_template:
            writer.add_chat_template(tokenizer.chat_template)

    return add


@pytest.mark.parametrize(
    ("kind", "model", "pre", "make"),
    [
        ("llama", "llama", "default", byte_fallback), ("llama", "gpt2", "llama-bpe", lambda: byte_level(LLAMA_3)),
        ("qwen2", "gpt2", "qwen2", lambda: byte_level(QWEN, END)),
        ("qwen3", "gpt2", "qwen2", lambda: byte_level(QWEN, END)),
    ],
    ids=["llama 2", "llama 3", "qwen2", "qwen3"],
)  # fmt: skip
def test_texts_are_split_as_before(
    kind: str, model: str, pre: str, make: Callable[[], Any], models: OpenModels, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(ARCHITECTURES, "qwen3", gguf.MODEL_ARCH.QWEN3)
    tokenizer = make()
    sizes: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": len(tokenizer), "tie_word_embeddings": False,
        **({"head_dim": 128} if kind == "qwen3" else {}),
    }  # fmt: skip
    config = transformers.AutoConfig.for_model(kind, **sizes)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "whole")
    file = tmp_path / "fox.gguf"
    write(tmp_path / "whole", file, tokens=described(tokenizer, model, pre))
    source = ModelSource("/fox.gguf", "1", [SourceFile("fox.gguf", file, file.stat().st_size)])
    models().bring("/fox", [source], {"options": {}}, lambda *_said: None)
    made: Any = transformers.AutoTokenizer.from_pretrained(tmp_path / "models/fox/versions/1")
    assert (made.bos_token_id, made.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert len(made) == len(tokenizer) and made.chat_template == tokenizer.chat_template
    start = [tokenizer.bos_token_id] if model == "llama" else []
    for text in SAMPLES:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert made(text, add_special_tokens=False)["input_ids"] == ids, text
        assert made(text)["input_ids"] == start + ids
        assert made.decode(ids) == tokenizer.decode(ids)
