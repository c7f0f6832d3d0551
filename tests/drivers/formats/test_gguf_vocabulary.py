"""Tokens of a tokenizer.json as GGUF keeps them. That llama.cpp splits texts alike: `tests/drivers/transform`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gguf import TokenType
from llmos.drivers.formats.gguf_vocabulary import LLAMA_3, UNKNOWN_CUT, read
from llmos.syscalls.errors import NotSupported


def byte_level(*cut: str, **more: Any) -> str:
    split = [{"type": "Split", "pattern": {"Regex": each}} for each in cut]
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]], **more}
    steps = {"type": "Sequence", "pretokenizers": [*split, {"type": "ByteLevel", "use_regex": not cut}]}
    added = [{"id": 3, "content": "<end>", "special": True}, {"id": 4, "content": "tool", "special": False}]
    return json.dumps({"normalizer": None, "pre_tokenizer": steps, "model": model, "added_tokens": added})


def sentence_piece(normalizer: Any, step: Any) -> str:
    vocab = {"<unk>": 0, "<0x41>": 1, "a": 2, "b": 3, "ab": 4, "aab": 5}
    model = {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "vocab": vocab, "merges": ["a b", "a ab"]}
    return json.dumps({"normalizer": normalizer, "pre_tokenizer": step, "model": model, "added_tokens": []})


@pytest.mark.parametrize(
    ("cut", "pre", "note"),
    [
        ([LLAMA_3], "llama-bpe", ""), ([LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")], "qwen2", ""), ([], "gpt-2", ""),
        ([r"\d+"], "default", UNKNOWN_CUT),
    ],
)  # fmt: skip
def test_how_words_are_cut_has_a_name(cut: list[str], pre: str, note: str) -> None:
    found = read(byte_level(*cut), 7)
    assert (found.model, found.pre, found.note) == ("gpt2", pre, note)
    assert found.tokens == ["a", "b", "ab", "<end>", "tool", "[PAD5]", "[PAD6]"]
    normal = [TokenType.NORMAL] * 3
    assert found.kinds == [*normal, TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNUSED, TokenType.UNUSED]
    assert found.merges == ["a b"] and not found.scores


def test_scores_follow_the_order_of_merges() -> None:
    found = read(sentence_piece({"type": "Prepend", "prepend": "_"}, None), 6)
    assert found.model == "llama" and found.prefix and not found.merges
    assert found.kinds[:3] == [TokenType.UNKNOWN, TokenType.BYTE, TokenType.NORMAL]
    assert found.scores[4] > found.scores[5] > found.scores[2] == found.scores[0]


@pytest.mark.parametrize(("scheme", "prefix"), [("always", True), ("never", False)])
def test_a_space_before_texts_is_told(scheme: str, prefix: bool) -> None:
    assert read(sentence_piece(None, {"type": "Metaspace", "prepend_scheme": scheme}), 6).prefix is prefix


def test_other_kinds_are_refused() -> None:
    with pytest.raises(NotSupported, match="of the kind Unigram"):
        read(json.dumps({"model": {"type": "Unigram", "vocab": []}}), 3)
