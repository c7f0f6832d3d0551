"""Text in pieces: whole characters, nothing lost, nothing invented, for each kind of tokenizer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_models import byte_fallback, byte_level, word_piece
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from llmos.drivers.engine.detokenizer import Vocabulary

REPLACEMENT = "\ufffd"
KINDS = {"byte-level": byte_level, "byte-fallback": byte_fallback, "word-piece": word_piece}
some_text = st.text(
    alphabet=st.one_of(st.sampled_from("the quick brown\n  ,.é你好😀👍"), st.characters(codec="utf-8")), max_size=25
).filter(lambda text: REPLACEMENT not in text)


@functools.cache
def kind(name: str) -> tuple[Any, Vocabulary]:
    tokenizer = KINDS[name]()
    return tokenizer, Vocabulary(tokenizer)


def pieces(vocabulary: Vocabulary, tokens: Sequence[int], prompt: Sequence[int] = ()) -> list[str]:
    detokenizer = vocabulary.detokenizer(prompt)
    return [detokenizer.feed(token) for token in tokens]


def is_clean(piece: str) -> bool:
    return REPLACEMENT not in piece


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
@given(text=some_text)
@example("👨‍👩‍👧 é")
@example("  two spaces first")
def test_any_text_comes_back_in_clean_pieces(name: str, text: str) -> None:
    tokenizer, vocabulary = kind(name)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = pieces(vocabulary, tokens)
    assert all(map(is_clean, found))
    assert "".join(found) == text == tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("name", KINDS)
@given(text=some_text, where=st.integers(0, 100))
def test_a_continuation_reads_on_from_its_prompt(name: str, text: str, where: int) -> None:
    """Prompt and answer together are the whole text, with the space between words, also inside a character."""
    tokenizer, vocabulary = kind(name)
    found = tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens = [token for token in found if token not in vocabulary.special]
    at = where % (len(tokens) + 1)
    whole = "".join(pieces(vocabulary, tokens))
    first = "".join(pieces(vocabulary, tokens[:at]))
    rest = pieces(vocabulary, tokens[at:], prompt=tokens[:at])
    assert all(map(is_clean, rest))
    assert first + "".join(rest) == whole == tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


@given(tokens=st.lists(st.integers(0, 400), max_size=40))
@pytest.mark.parametrize("name", ["byte-level", "word-piece"])
def test_any_tokens_give_what_the_tokenizer_decodes(name: str, tokens: list[int]) -> None:
    """Random tokens are mostly broken UTF-8; only a character still open at the end is left out."""
    tokenizer, vocabulary = kind(name)
    known = [token for token in tokens if token < len(tokenizer)]
    whole = tokenizer.decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    ours = "".join(pieces(vocabulary, tokens))
    assert ours == whole or (ours == whole[: len(ours)] and set(whole[len(ours) :]) == {REPLACEMENT})


@given(data=st.binary(max_size=30))
def test_bytes_that_are_no_text_do_not_spoil_their_neighbours(data: bytes) -> None:
    tokenizer, vocabulary = kind("byte-fallback")
    tokens = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in data]
    word = tokenizer.convert_tokens_to_ids("▁the")
    ours = "".join(pieces(vocabulary, [*tokens, word]))
    expected = data.decode("utf-8", "replace")
    assert ours == expected[expected.startswith(" ") :] + (" the" if data else "the")


def test_pieces_wait_for_the_rest_of_a_character() -> None:
    tokenizer, vocabulary = kind("byte-fallback")
    tokens = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in "a😀b".encode()]
    assert pieces(vocabulary, tokens) == ["a", "", "", "", "😀", "b"]
    assert pieces(vocabulary, tokens[:4]) == ["a", "", "", ""]
    assert pieces(vocabulary, tokens[3:], prompt=tokens[:3]) == ["", "😀", "b"]


def test_the_first_word_has_no_space_and_the_next_ones_do() -> None:
    tokenizer, vocabulary = kind("byte-fallback")
    the, dog = (tokenizer.convert_tokens_to_ids(word) for word in ("▁the", "▁dog"))
    assert pieces(vocabulary, [the, dog]) == ["the", " dog"]
    assert pieces(vocabulary, [dog], prompt=[the]) == [" dog"]
    assert pieces(vocabulary, [dog], prompt=[tokenizer.bos_token_id]) == ["dog"]


def test_parts_of_words_join_and_words_do_not() -> None:
    tokenizer, vocabulary = kind("word-piece")
    tokens = tokenizer("jumps over", add_special_tokens=False)["input_ids"]
    assert "".join(pieces(vocabulary, tokens)) == "jumps over"
    (over,) = tokenizer("over", add_special_tokens=False)["input_ids"]
    assert pieces(vocabulary, [over], prompt=tokens[:-1]) == [" over"]


def test_special_tokens_have_no_text_but_a_name() -> None:
    for name in KINDS:
        tokenizer, vocabulary = kind(name)
        assert set(tokenizer.all_special_ids) <= vocabulary.special
        assert pieces(vocabulary, sorted(vocabulary.special)) == [""] * len(vocabulary.special)
        for token in vocabulary.special:
            assert vocabulary.text_of(token) == tokenizer.convert_ids_to_tokens(token)


def test_text_of_a_token_shows_parts_of_characters_as_such() -> None:
    tokenizer, vocabulary = kind("byte-fallback")
    assert vocabulary.text_of(tokenizer.convert_tokens_to_ids("<0xF0>")) == REPLACEMENT
    assert vocabulary.text_of(tokenizer.convert_tokens_to_ids("▁the")) == " the"
    assert kind("word-piece")[1].text_of(kind("word-piece")[0].convert_tokens_to_ids("the")) == "the"


def _with_decoder(decoder: Any, words: Sequence[str]) -> Any:
    tokenizer = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_decoder_that_is_not_known_is_asked() -> None:
    """A marker at the end of a word, as in the first GPT: the space is known only when the next word comes."""
    vocabulary = Vocabulary(_with_decoder(decoders.BPEDecoder(suffix="</w>"), ["?", "low", "er</w>", "new</w>"]))
    assert pieces(vocabulary, [1, 2, 3, 1]) == ["low", "er", " new", " low"]
    strange = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("a", "b")])
    vocabulary = Vocabulary(_with_decoder(strange, ["?", "aa", "<0xC3>", "<0xA9>"]))
    assert pieces(vocabulary, [1, 2, 3]) == ["bb", "", "é"]
    none = Vocabulary(_with_decoder(None, ["?", "one", "two"]))
    assert pieces(none, [1, 2]) == ["one", " two"]


def test_a_window_does_not_wait_for_ever() -> None:
    """A decoder that strips both ends is not decoded by bytes; a real U+FFFD is shown after a few tokens."""
    both_ends = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 1)])
    vocabulary = Vocabulary(_with_decoder(both_ends, ["?", "<0xFF>", "word"]))
    found = pieces(vocabulary, [1] * 20)
    assert "".join(found) and found[0] == ""
