"""Tokens as bytes, for tokenizers of every kind; what has none is refused."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from grammar_runs import Senseless
from tiny_models import TEXTS, byte_fallback, byte_level, word_piece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from llmos.drivers.engine.detokenizer import Vocabulary
from llmos.drivers.engine.sampling import pieces as module
from llmos.drivers.engine.sampling.pieces import pieces
from llmos.syscalls.errors import NotSupported


def metaspace() -> Any:
    """As T5 and XGLM: sentencepiece's mark for a space, no bytes."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator([*TEXTS, '{ } [ ] " : , 0 1 2'], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


class Slow(transformers.PreTrainedTokenizer):  # type: ignore[misc]
    """Written in Python, with the table of GPT-2 that stands for bytes."""

    def __init__(self, fast: Any, table: dict[str, int] | None, mark: str = "") -> None:
        self.words = {name: id for name, id in fast.get_vocab().items() if id not in fast.all_special_ids}
        self.names = {id: name for name, id in self.words.items()}
        self.mark = mark
        if table is not None:
            self.byte_decoder = table
        super().__init__()

    @property
    def vocab_size(self) -> int:
        return max(self.names) + 1

    def get_vocab(self) -> dict[str, int]:
        return dict(self.words)

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return self.words[token]

    def _convert_id_to_token(self, index: int) -> str:
        return self.names[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        if self.mark:
            return "".join(tokens).replace(self.mark, " ").removeprefix(" ")
        return bytes(self.byte_decoder[character] for token in tokens for character in token).decode("utf-8", "replace")


def table() -> dict[str, int]:
    """What each stand-in of GPT-2 is for, by the tokenizers library."""
    decoder, known = decoders.ByteLevel(), {}
    for character in pre_tokenizers.ByteLevel.alphabet():
        text = decoder.decode([character])
        if text != "\ufffd":
            known[character] = ord(text)
    left = iter(byte for byte in range(128, 256))
    return known | {name: next(left) for name in sorted(pre_tokenizers.ByteLevel.alphabet()) if name not in known}


def test_byte_level_tokens_are_their_bytes_and_special_ones_their_names() -> None:
    tokenizer = byte_level()
    found = pieces(tokenizer, Vocabulary(tokenizer))
    ids = tokenizer("héllo wörld 😀")["input_ids"]
    assert b"".join(found.bytes_of[id] for id in ids).decode() == "héllo wörld 😀"
    assert {found.bytes_of[id] for id in found.special} >= {b"<s>", b"<|user|>"}


def test_byte_fallback_tokens_are_text_or_single_bytes() -> None:
    tokenizer = byte_fallback()
    found = pieces(tokenizer, Vocabulary(tokenizer))
    ids = tokenizer("the dog 😀")["input_ids"]
    assert b"".join(found.bytes_of[id] for id in ids).decode() == " the dog 😀"


def test_marks_for_spaces_are_spaces() -> None:
    tokenizer = metaspace()
    found = pieces(tokenizer, Vocabulary(tokenizer))
    ids = tokenizer("the quick dog", add_special_tokens=False)["input_ids"]
    assert b"".join(found.bytes_of[id] for id in ids) == b" the quick dog"


def test_a_tokenizer_written_in_python_has_bytes_too() -> None:
    fast = byte_level()
    for slow in (Slow(fast, table()), Slow(fast, None, mark="Ġ")):
        if slow.mark:
            slow.words = {name.replace("Ġ", "\u2581"): id for name, id in slow.words.items() if name.isascii()}
            slow.names, slow.mark = {id: name for name, id in slow.words.items()}, "\u2581"
        found = pieces(slow, Vocabulary(slow))
        for id in slow.names:
            if fast.convert_ids_to_tokens(id).isascii():
                assert found.bytes_of[id].decode("utf-8", "replace") == fast.decode([id])


def test_structured_output_works_with_every_one_of_them() -> None:
    for tokenizer in (byte_level(), byte_fallback(), metaspace()):
        assert Senseless(tokenizer).answer({"regex": "[a-d]{3}"}, 1.0)[1] == "grammar"


def test_tokens_that_read_differently_by_their_neighbours_are_refused_with_an_example() -> None:
    tokenizer = word_piece()
    with pytest.raises(NotSupported) as error:
        pieces(tokenizer, Vocabulary(tokenizer))
    assert "read" in error.value.why or "no bytes" in error.value.why


def test_bytes_that_are_not_the_text_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_level()
    vocabulary = Vocabulary(tokenizer)
    monkeypatch.setattr(vocabulary, "bytes_of", lambda token: Vocabulary.bytes_of(vocabulary, token).upper())
    with pytest.raises(NotSupported) as error:
        pieces(tokenizer, vocabulary)
    assert "one by one" in error.value.why


def test_a_gap_in_the_ids_is_no_token() -> None:
    slow = Slow(byte_level(), table())
    gap = slow.words.pop("a")
    del slow.names[gap]
    found = pieces(slow, Vocabulary(slow))
    assert found.bytes_of[gap] == b"" and len(found.bytes_of) == max(slow.names) + 1


def test_pieces_of_bytes_are_what_they_are() -> None:
    assert module._marked(lambda id: b"\xff\x00", "\u2581", 0) == b"\xff\x00"
    assert module._marked(lambda id: "<0xFF>", "\u2581", 0) == b"\xff"
    assert module._marked(lambda id: "\u2581a", "\u2581", 0) == b" a"
