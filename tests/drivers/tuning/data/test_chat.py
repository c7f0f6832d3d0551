"""Of a conversation the model learns its own answers, to the token, whatever the template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.data import chat
from llmos.drivers.tuning.data.example import IGNORED, Example
from llmos.syscalls.errors import BadArgument
from tiny_models import CHAT_TEMPLATE, byte_level

MARKED = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
THOUGHTLESS = (  # as templates of models that think: thoughts stay in the last answer alone
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'].split('</think>')[-1] }}"
    "{% else %}{{ message['content'] }}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
OPENING = CHAT_TEMPLATE.replace("%}<|assistant|>{%", "%}<|assistant|><think>{%")
WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs", "So"]), min_size=1, max_size=12)
TURNS = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), WORDS), min_size=1, max_size=5)


def tokenizer(template: str) -> Any:
    made = byte_level()
    made.chat_template = template
    return made


PLAIN = tokenizer(CHAT_TEMPLATE)


def said(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in turns]


def reckoned(turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[int]]:
    """Tokens and labels of the plain template, put together turn by turn: special tokens keep turns apart."""
    tokens: list[int] = []
    labels: list[int] = []
    for role, text in turns:
        head = [PLAIN.convert_tokens_to_ids(f"<|{role}|>")]
        body = [*PLAIN(text, add_special_tokens=False)["input_ids"], PLAIN.convert_tokens_to_ids("<|end|>")]
        tokens += head + body
        labels += [IGNORED] * len(head) + (body if role == "assistant" else [IGNORED] * len(body))
    return tokens, labels


def texts(example: Example) -> tuple[str, str]:
    """What is read and what is learned."""
    learned = [id for id, label in zip(example.tokens, example.labels, strict=True) if label != IGNORED]
    assert all(label in (id, IGNORED) for id, label in zip(example.tokens, example.labels, strict=True))
    return PLAIN.decode(example.tokens), PLAIN.decode(learned)


@given(TURNS, WORDS)
def test_only_the_tokens_of_answers_are_learned(turns: list[tuple[str, str]], last: str) -> None:
    turns = [*turns, ("assistant", last)]
    (example,) = chat.encode(PLAIN, said(*turns), "f:1")
    assert (list(example.tokens), list(example.labels)) == reckoned(turns)


@given(TURNS, WORDS)
def test_the_templates_own_marks_say_the_same(turns: list[tuple[str, str]], last: str) -> None:
    messages = said(*turns, ("assistant", last))
    (example,), (marked,) = (chat.encode(each, messages, "f:1") for each in (PLAIN, tokenizer(MARKED)))
    assert (list(example.tokens), list(example.labels)) == (list(marked.tokens), list(marked.labels))


def test_all_tokens_may_be_learned() -> None:
    (example,) = chat.encode(PLAIN, said(("user", "hi"), ("assistant", "yes")), "f:1", everything=True)
    assert example.labels == example.tokens and texts(example)[0] == "<|user|>hi<|end|><|assistant|>yes<|end|>"


def test_where_earlier_answers_are_rendered_otherwise_each_answer_is_an_example() -> None:
    """So each is learned as it is said: with its thoughts, behind earlier answers without theirs."""
    turns = (("user", "a"), ("assistant", "why</think>b"), ("user", "c"), ("assistant", "so</think>d"))
    examples = chat.encode(tokenizer(THOUGHTLESS), said(*turns), "f:1")
    before = "<|user|>a<|end|><|assistant|>"
    assert [texts(example) for example in examples] == [
        (before + "why</think>b<|end|>", "why</think>b<|end|>"),
        (before + "b<|end|><|user|>c<|end|><|assistant|>so</think>d<|end|>", "so</think>d<|end|>"),
    ]


def test_a_prompt_that_opens_a_thought_is_no_part_of_the_answer() -> None:
    with_thought, without = said(("assistant", "<think>hm</think>a")), said(("assistant", "a"))
    asked = said(("user", "q"))
    (first,), (second,) = (chat.encode(tokenizer(OPENING), asked + each, "f:1") for each in (with_thought, without))
    assert texts(first)[1] == "hm</think>a<|end|>"
    assert texts(second)[1] == "a<|end|>"


def test_parts_of_text_are_one_text_and_tools_are_rendered() -> None:
    made = tokenizer("{% if tools %}{{ tools[0]['name'] }}!{% endif %}" + CHAT_TEMPLATE)
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "c"}]
    assert texts(chat.encode(made, messages, "f:1", [{"name": "look"}])[0])[0].startswith("look!<|user|>a\nb<|end|>")
    assert texts(chat.encode(made, messages, "f:1")[0])[0].startswith("<|user|>a\nb<|end|>")


@pytest.mark.parametrize(
    ("template", "messages", "why"),
    [
        (CHAT_TEMPLATE + "{{ raise_exception('roles must alternate') }}", said(("assistant", "a")), "must alternate"),
        ("{{ messages[0].content.missing.more }}", said(("assistant", "a")), "refuses these messages"),
        (MARKED, said(("user", "a")), "marks no answer"),
        ("{{ messages | length }} " + CHAT_TEMPLATE, said(("user", "a"), ("assistant", "b")), "renders what comes"),
    ],
)
def test_what_the_template_does_not_take_is_told_with_its_place(
    template: str, messages: list[dict[str, Any]], why: str
) -> None:
    with pytest.raises(BadArgument, match=f"^f:3: .*{why}"):
        chat.encode(tokenizer(template), messages, "f:3")


@given(WORDS, WORDS, WORDS)
def test_tokens_that_reach_into_a_span_are_learned(before: str, inside: str, behind: str) -> None:
    text, first = before + inside + behind, len(before)
    last = first + len(inside)
    example = chat.spanned(PLAIN, text, [(first, last)])
    offsets = PLAIN(text, return_offsets_mapping=True)["offset_mapping"]
    touching = [bool(set(range(begin, end)) & set(range(first, last))) for begin, end in offsets]
    assert [label != IGNORED for label in example.labels] == touching
    assert list(example.tokens) == PLAIN(text)["input_ids"]
