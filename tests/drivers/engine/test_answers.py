"""One answer as it grows: where it ends, and what is sent of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_models import ask, byte_fallback

from llmos.drivers.contract import TokenLogprob
from llmos.drivers.engine.answers import Answer
from llmos.drivers.engine.detokenizer import Vocabulary
from llmos.drivers.engine.loader import Bundle
from llmos.syscalls.errors import BadArgument

END = 1


def answer(bundle: Bundle, room: int = 10, stream: bool = True, **sampling: object) -> Answer:
    request = ask([5, 6], "r", stream=stream, **sampling)  # type: ignore[arg-type]
    return Answer(request, 2, bundle, Vocabulary(bundle.tokenizer), [5, 6], room)


@pytest.fixture
def ending(bundle: Bundle) -> Bundle:
    """A model with an end token."""
    return replace(bundle, eos=frozenset([END]))


def ids(bundle: Bundle, text: str) -> list[int]:
    found: list[int] = bundle.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def test_pieces_together_are_the_text(bundle: Bundle) -> None:
    made, pieces = answer(bundle, 20), []
    tokens = ids(bundle, "the 你 fox")
    for token in tokens:
        made.take(token)
        chunk = made.chunk()
        pieces += [chunk] if chunk is not None else []
    assert "".join(piece.text for piece in pieces) == made.result().text == "the 你 fox"
    assert [token for piece in pieces for token in piece.tokens] == tokens
    assert all(piece.index == 2 and "�" not in piece.text for piece in pieces)
    assert made.reason == "" and made.chunk() is None


def test_the_end_token_ends_it_and_has_no_text(ending: Bundle) -> None:
    made = answer(ending)
    made.take(ids(ending, "x")[0])
    made.take(END)
    assert (made.reason, made.result().text, len(made.tokens)) == ("stop", "x", 2)
    ignoring = answer(ending, ignore_eos=True)
    ignoring.take(END)
    assert ignoring.reason == ""


def test_a_stop_string_is_held_back_and_cut_off(bundle: Bundle) -> None:
    made = answer(bundle, 30, stop=["fox"])
    sent = ""
    for token in ids(bundle, "the fox jumps"):
        if not made.reason:
            made.take(token)
            chunk = made.chunk()
            sent += chunk.text if chunk is not None else ""
    assert (made.reason, made.result().text, sent) == ("stop", "the ", "the ")


def test_its_room_and_a_complete_grammar_end_it(bundle: Bundle) -> None:
    short, complete = answer(bundle, 2), answer(bundle, 2)
    for token in ids(bundle, "ab")[:1] * 2:
        short.take(token)
    complete.take(ids(bundle, "a")[0], complete=True)
    assert (short.reason, complete.reason, answer(bundle, 0).reason) == ("length", "grammar", "length")


def test_the_first_space_of_a_chats_answer_is_text_where_a_grammar_counts_it(bundle: Bundle) -> None:
    marked = replace(bundle, tokenizer=byte_fallback())
    (token, *_), chat = ids(marked, "ab"), [{"role": "user", "content": "x"}]
    assert Vocabulary(marked.tokenizer).bytes_of(token).startswith(b" ")
    texts = []
    for grammar in (None, {"choice": [" ab"]}):
        made = Answer(ask(chat, grammar=grammar), 0, marked, Vocabulary(marked.tokenizer), ids(marked, "hi"), 9)
        for each in ids(marked, "ab"):
            made.take(each)
        texts.append(made.result().text)
    assert texts == ["ab", " ab"]


def test_what_was_held_back_comes_when_it_is_ended(bundle: Bundle) -> None:
    made = answer(bundle, stop=["abc"])
    for token in ids(bundle, "ab"):
        made.take(token)
    assert made.chunk() is None
    made.end("cancelled")
    last = made.chunk()
    assert last is not None and (last.text, made.result().reason) == ("ab", "cancelled")


def test_tokens_without_text_come_with_the_end(ending: Bundle) -> None:
    made = answer(ending)
    made.take(END)
    last = made.chunk()
    assert last is not None and (last.text, list(last.tokens)) == ("", [END])


def test_nothing_is_sent_when_nobody_streams(bundle: Bundle) -> None:
    made = answer(bundle, stream=False)
    made.take(5)
    made.end("length")
    assert made.chunk() is None


def test_log_probabilities_are_kept_if_they_were_asked_for(bundle: Bundle) -> None:
    told = TokenLogprob(5, "x", -1.0)
    asked, other = answer(bundle, logprobs=0), answer(bundle)
    for made in (asked, other):
        made.take(ids(bundle, "x")[0], told)
    assert (asked.result().logprobs, other.result().logprobs) == ([told], None)
    assert asked.result(7).index == 7


def test_an_empty_stop_string_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BadArgument):
        answer(bundle, stop=[""])
