"""Rows become tokens and what is learned from them, checked against plain calls of the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.engine import kinds
from llmos.drivers.tuning.data.base import Base
from llmos.drivers.tuning.data.encoding import Encoding
from llmos.drivers.tuning.data.example import IGNORED, Example
from llmos.drivers.tuning.data.labels import Labels
from llmos.syscalls.errors import BadArgument, BadModel
from tiny_kinds import pair_tokenizer
from tiny_models import byte_level
from training_data import CONTEXT, base, recipe

BYTES, PAIRS, CHATS = byte_level(bos=True), pair_tokenizer(), byte_level(chat=True)
HEADS = {
    "masked-lm": kinds.MASKED, "seq2seq": kinds.SEQ2SEQ, "classification": kinds.SEQUENCE,
    "multi-label": kinds.SEQUENCE, "regression": kinds.SEQUENCE,
    "token-classification": kinds.TOKEN, "question-answering": kinds.QUESTION,
    "embedding": kinds.ENCODER,
}  # fmt: skip
TEXTS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1, max_size=7)


def encoding(schema: str, objective: str = "causal-lm", tokenizer: Any = None, texts: bool = False,
             of: Base | None = None, **fields: Any) -> Encoding:  # fmt: skip
    fallback = BYTES if objective in ("causal-lm", "preference") else PAIRS
    of = of or base(tokenizer or fallback, HEADS.get(objective, kinds.CAUSAL))
    made = recipe(objective, **fields)
    return Encoding(of, made, schema, Labels(made, of, ()), texts)


def one(schema: str, record: Mapping[str, Any], objective: str = "causal-lm", **more: Any) -> Example:
    (example,) = encoding(schema, objective, **more)(record, "f:1")
    return example


def learned(example: Example) -> list[float]:
    return [label for label in example.labels if label != IGNORED]


@given(TEXTS)
def test_of_a_text_every_token_and_the_end_are_learned(text: str) -> None:
    example = one("text", {"text": text})
    assert example.tokens == [*BYTES(text)["input_ids"], BYTES.eos_token_id]
    assert example.labels == example.tokens and not example.aligned


@given(TEXTS, TEXTS)
def test_of_a_completion_the_answer_and_the_end_are_learned(prompt: str, answer: str) -> None:
    """Tokens are those of both together, as they are when the model serves; a token of both is learned."""
    example = one("completion", {"prompt": prompt, "completion": answer})
    whole = BYTES(prompt + answer, return_offsets_mapping=True)
    count = sum(end > len(prompt) for _, end in whole["offset_mapping"])
    assert example.tokens == [*whole["input_ids"], BYTES.eos_token_id]
    assert example.labels == [IGNORED] * (len(example.tokens) - count - 1) + example.tokens[-count - 1 :]


def test_prompts_are_learned_where_the_recipe_says_so() -> None:
    example = one("completion", {"prompt": "ask ", "completion": "say"}, options={"train_on": "all"})
    assert example.labels == example.tokens
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert one("messages", chat, tokenizer=CHATS, options={"train_on": "all"}).learned == 5
    assert one("messages", chat, tokenizer=CHATS).learned == 2


def test_hidden_words_are_those_of_the_text() -> None:
    example = one("text", {"text": "the quick fox"}, "masked-lm")
    ids = PAIRS("the quick fox", add_special_tokens=False)["input_ids"]
    assert example.tokens == [PAIRS.cls_token_id, *ids, PAIRS.sep_token_id]
    assert example.labels == [IGNORED, *ids, IGNORED] and example.aligned and example.learned == len(ids)


def test_of_two_texts_the_second_is_written() -> None:
    example = one("completion", {"prompt": "the fox", "completion": "the dog"}, "seq2seq")
    (told,) = example.others
    assert (example.tokens, example.learned) == (PAIRS("the fox")["input_ids"], 0)
    assert told.tokens == told.labels == PAIRS("the dog")["input_ids"]
    assert told.aligned and told.learned == len(told), "the first token is to be said, too"


def test_classes_of_one_text_or_two() -> None:
    alone = one("label", {"text": "the fox", "label": "b"}, "classification", options={"labels": ["a", "b"]})
    assert (alone.tokens, alone.labels, alone.kinds) == (PAIRS("the fox")["input_ids"], (1,), ())
    both = {"text": "the fox", "text_pair": "the dog", "label": "a"}
    pair = one("label", both, "classification", options={"labels": ["a", "b"]})
    wanted = PAIRS("the fox", "the dog")
    assert (pair.tokens, pair.kinds) == (wanted["input_ids"], wanted["token_type_ids"])
    assert pair.whole and set(pair.kinds) == {0, 1}
    assert one("score", {"text": "the fox", "score": 2}, "regression").labels == (2.0,)


def test_the_first_token_of_a_word_has_its_tag() -> None:
    words, tags = ["quick", "foxes", "over"], ["B", "O", "O"]
    example = one("tags", {"tokens": words, "tags": tags}, "token-classification", options={"labels": ["O", "B"]})
    pieces = [PAIRS(word, add_special_tokens=False)["input_ids"] for word in words]
    labels = [
        tag if n == 0 else IGNORED for tag, piece in zip((1, 0, 0), pieces, strict=True) for n in range(len(piece))
    ]
    assert max(map(len, pieces)) > 1
    assert example.tokens == [PAIRS.cls_token_id, *(id for piece in pieces for id in piece), PAIRS.sep_token_id]
    assert example.labels == [IGNORED, *labels, IGNORED] and example.learned == 3


def test_tags_of_a_tokenizer_that_puts_nothing_before_a_text() -> None:
    plain = byte_level()
    plain.add_prefix_space = True
    made = {"tokens": ["fox"], "tags": ["B"]}
    example = one("tags", made, "token-classification", tokenizer=plain, options={"labels": ["O", "B"]})
    assert example.labels[0] == 1 and example.learned == 1


@given(st.lists(st.sampled_from(["fox", "dog", "the", "over", "lazy,"]), min_size=1, max_size=8), st.data())
def test_the_tokens_of_an_answer(words: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    answer = " ".join(words[first : last + 1])
    start = len(" ".join([*words[:first], ""]))
    answers = {"text": [answer], "answer_start": [start]}
    row = {"question": "the fox?", "context": " ".join(words), "answers": answers}
    example = one("answer", row, "question-answering", of=base(PAIRS, kinds.QUESTION, 128))
    begin, end = map(int, example.labels)
    assert example.whole and PAIRS.decode(example.tokens[begin : end + 1]) == PAIRS.decode(
        PAIRS(answer, add_special_tokens=False)["input_ids"]
    )
    before = PAIRS(" ".join(words[:first]), add_special_tokens=False)["input_ids"]
    assert begin == len(PAIRS("the fox?")["input_ids"]) + len(before)


@pytest.mark.parametrize(
    ("answers", "said"),
    [({"text": ["dog"], "answer_start": [1]}, "does not stand in the context"), ("cat", "does not stand"),
     ({"text": [" "], "answer_start": [3]}, "has no token of its own")],
)  # fmt: skip
def test_an_answer_that_is_not_there_is_refused(answers: Any, said: str) -> None:
    row = {"question": "who?", "context": "the dog", "answers": answers}
    with pytest.raises(BadArgument, match=f"^f:1: .*{said}"):
        encoding("answer", "question-answering")(row, "f:1")


def test_an_answer_may_be_given_as_text_alone() -> None:
    row = {"question": "fox", "context": "the lazy dog", "answers": "lazy"}
    begin, end = map(int, one("answer", row, "question-answering").labels)
    assert PAIRS.decode(one("answer", row, "question-answering").tokens[begin : end + 1]) == "lazy"


def test_texts_that_are_near_and_far() -> None:
    row = {"anchor": "fox", "positive": "quick fox", "negative": "dog"}
    example = one("triple", row, "embedding")
    texts = [example.tokens, *(other.tokens for other in example.others)]
    assert texts == [PAIRS(text)["input_ids"] for text in row.values()]
    assert len(one("pair", {"anchor": "fox", "positive": "dog"}, "embedding").others) == 1


def test_preferences_share_their_prompt() -> None:
    example = one("preference", {"prompt": "ask ", "chosen": "good", "rejected": "bad"}, "preference")
    for answer, made in zip(("good", "bad"), (example, *example.others), strict=True):
        alone = one("completion", {"prompt": "ask ", "completion": answer})
        assert (made.tokens, made.labels) == (alone.tokens, alone.labels)


def test_the_right_choice_stands_before_the_others() -> None:
    row = {"prompt": "ask ", "choices": ["no", "yes", "maybe"]}
    for answer in (1, "yes"):
        example = one("choice", {**row, "answer": answer}, "multiple-choice", tokenizer=BYTES)
        texts = [BYTES.decode(each.tokens[5:-1]) for each in (example, *example.others)]
        assert texts == ["yes", "no", "maybe"]
        assert [learned(each) for each in (example, *example.others)] == [
            [*BYTES(text)["input_ids"][1:], BYTES.eos_token_id] for text in texts
        ]


def test_choices_are_as_many_in_each_row_and_one_is_right() -> None:
    encode = encoding("choice", "multiple-choice", tokenizer=BYTES)
    for answer in (3, -1, "neither"):
        with pytest.raises(BadArgument, match="f:1: the answer is none of the choices"):
            encode({"prompt": "ask", "choices": ["a", "b", "c"], "answer": answer}, "f:1")
    encode({"prompt": "ask", "choices": ["a", "b", "c"], "answer": 0}, "f:1")
    with pytest.raises(BadArgument, match="f:2: 2 choices, the rows before have 3"):
        encode({"prompt": "ask", "choices": ["a", "b"], "answer": 0}, "f:2")


def test_triplets_need_rows_with_a_negative() -> None:
    options = {"contrast": "triplet"}
    encoding("triple", "embedding", options=options)
    with pytest.raises(BadArgument, match="rows with a negative"):
        encoding("pair", "embedding", options=options)


def test_preferences_of_conversations() -> None:
    asked, good = [{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}]
    wanted = one("messages", {"messages": asked + good}, tokenizer=CHATS)
    for row in ({"prompt": asked, "chosen": good}, {"chosen": asked + good}, {"prompt": "a", "chosen": good},
                {"prompt": asked, "chosen": "b"}):  # fmt: skip
        example = one("preference", {**row, "rejected": row["chosen"]}, "preference", tokenizer=CHATS)
        assert (example.tokens, example.labels) == (wanted.tokens, wanted.labels)
    with pytest.raises(BadModel, match="no chat template"):
        one("preference", {"prompt": asked, "chosen": "b", "rejected": "c"}, "preference")


def test_of_several_answers_the_last_is_preferred() -> None:
    """Where the template renders earlier ones otherwise, and each is an example."""
    made = byte_level()
    made.chat_template = (
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
        "{% if message['role'] == 'assistant' and not loop.last %}!{% endif %}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    before = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    row = {"prompt": before, "chosen": "good", "rejected": "bad"}
    example = one("preference", row, "preference", tokenizer=made)
    assert [made.decode(learned(each)) for each in (example, *example.others)] == ["good<|end|>", "bad<|end|>"]


LONG = "the quick brown fox jumps over the lazy dog and the other dog " * 9
COUNT = len(BYTES(LONG)["input_ids"]) + 1


def cut_to(limit: int, how: str, texts: bool = False) -> tuple[Encoding, list[Example]]:
    made = encoding("text", max_length=limit, options={"long": how} if how else {}, texts=texts)
    return made, made({"text": LONG}, "f:1")


def test_a_text_that_is_too_long_is_refused_with_its_place() -> None:
    with pytest.raises(BadArgument, match=rf"^f:1: {COUNT} tokens, at most {CONTEXT} fit; shorten it"):
        encoding("text")({"text": LONG}, "f:1")
    with pytest.raises(BadArgument, match=rf"^f:1: {COUNT + 3} tokens, at most {CONTEXT} fit; .* cut or drop$"):
        encoding("completion")({"prompt": "ask", "completion": LONG}, "f:1")


def test_a_long_text_may_be_cut_dropped_or_split() -> None:
    made, (cut,) = cut_to(20, "cut")
    assert list(cut.tokens) == list(cut.labels) == [*BYTES(LONG)["input_ids"], BYTES.eos_token_id][:20]
    assert made.counts == {"cut": 1, "dropped": 0, "split": 0}
    made, nothing = cut_to(20, "drop")
    assert nothing == [] and made.counts["dropped"] == 1
    for made, parts in (cut_to(20, "split"), cut_to(20, "", texts=True)):
        assert [token for part in parts for token in part.tokens] == [*BYTES(LONG)["input_ids"], BYTES.eos_token_id]
        assert {len(part) for part in parts[:-1]} == {20} and made.counts["split"] == 1


def test_a_cut_that_leaves_nothing_to_learn_drops_the_row() -> None:
    made = encoding("completion", max_length=12, options={"long": "cut"})
    assert made({"prompt": LONG, "completion": "fox"}, "f:1") == []
    assert made({"prompt": "ask", "completion": LONG}, "f:1") != []
    assert made.counts == {"cut": 2, "dropped": 1, "split": 0}


@pytest.mark.parametrize("short", ["chosen", "rejected"])
def test_of_a_pair_of_answers_neither_may_be_cut_away(short: str) -> None:
    made = encoding("preference", "preference", max_length=12, options={"long": "cut"})
    prompt = "x" * 12
    assert made({"prompt": prompt, "chosen": "good", "rejected": "bad"}, "f:1") == []
    assert made({"prompt": "x", "chosen": LONG, "rejected": LONG, short: "fox"}, "f:1") != []


def test_what_ends_a_text_stays_when_the_text_is_cut() -> None:
    fields: dict[str, Any] = {"max_length": 8, "options": {"long": "cut", "labels": ["a"]}}
    wanted = PAIRS(LONG, truncation=True, max_length=8)["input_ids"]
    assert one("label", {"text": LONG, "label": 0}, "classification", **fields).tokens == wanted
    pair = one("pair", {"anchor": LONG, "positive": LONG}, "embedding", **fields)
    assert [pair.tokens, pair.others[0].tokens] == [wanted, wanted]
    both = one("completion", {"prompt": LONG, "completion": "fox"}, "seq2seq", **fields)
    assert both.tokens == wanted and both.others[0].tokens == PAIRS("fox")["input_ids"]
    hidden = one("text", {"text": LONG}, "masked-lm", **fields)
    assert hidden.tokens == wanted and hidden.labels == [IGNORED, *wanted[1:-1], IGNORED]
    two = {"text": "fox", "text_pair": LONG, "label": 0}
    cut = one("label", two, "classification", **fields)
    made = PAIRS("fox", LONG, truncation="only_second", max_length=8)
    assert (cut.tokens, cut.kinds) == (made["input_ids"], made["token_type_ids"])


@pytest.mark.parametrize(
    ("schema", "objective", "long", "want"),
    [("completion", "causal-lm", "split", "refuse, cut or drop"), ("label", "classification", "split", "refuse, cut"),
     ("tags", "token-classification", "cut", "refuse, drop"), ("answer", "question-answering", "cut", "refuse, drop"),
     ("answer", "question-answering", "split", "refuse, drop")],
)  # fmt: skip
def test_what_cannot_be_cut_or_split_is_told_before_any_row(schema: str, objective: str, long: str, want: str) -> None:
    with pytest.raises(BadArgument, match=f"rows of {schema} cannot be {long}; long is {want}"):
        encoding(schema, objective, options={"long": long})


def test_no_row_is_longer_than_the_context() -> None:
    with pytest.raises(BadArgument, match=f"max_length is {CONTEXT + 1}, tiny takes {CONTEXT} tokens") as caught:
        encoding("text", max_length=CONTEXT + 1)
    assert caught.value.name == "max_length"
    assert encoding("text").limit == CONTEXT and encoding("text", max_length=9).limit == 9


def test_tokens_that_are_learned_before_a_text_take_of_the_context() -> None:
    of = base(BYTES)
    fields: dict[str, Any] = {"method": "prompt", "options": {"virtual_tokens": 20}}
    assert encoding("text", of=of, **fields).limit == CONTEXT - 20
    with pytest.raises(BadArgument, match=f"takes {CONTEXT} tokens, 20 of which are learned .* at most {CONTEXT - 20}"):
        encoding("text", of=of, max_length=CONTEXT - 19, **fields)
    with pytest.raises(BadArgument, match=f"fewer virtual_tokens than {CONTEXT}"):
        encoding("text", of=of, **{**fields, "options": {"virtual_tokens": CONTEXT}})


def test_messages_need_a_chat_template() -> None:
    with pytest.raises(BadModel, match="no chat template"):
        encoding("messages")


def test_a_tokenizer_that_ends_texts_itself_ends_them_once() -> None:
    class Ending:
        """Adds the end itself."""

        eos_token_id, sep_token_id = BYTES.eos_token_id, None

        def __call__(self, text: str, **options: Any) -> Mapping[str, Sequence[Any]]:
            made = BYTES(text, **options)
            return {"input_ids": [*made["input_ids"], self.eos_token_id],
                    "offset_mapping": [*made["offset_mapping"], (0, 0)]}  # fmt: skip

    example = one("text", {"text": "fox"}, of=base(Ending()))
    assert list(example.tokens).count(BYTES.eos_token_id) == 1
    without = transformers.PreTrainedTokenizerFast(tokenizer_object=BYTES.backend_tokenizer)
    assert one("text", {"text": "fox"}, of=base(without)).tokens == without("fox")["input_ids"]
