"""Prompts to ids."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.drivers.contract import MediaPart, Part, Prompt, TablePart, TensorView
from llmos.drivers.engine.loader import Bundle
from llmos.drivers.engine.tokens import each_text, prepare, truncated
from llmos.syscalls.errors import BadArgument, NotSupported, TooLarge

HELLO = ({"role": "user", "content": "hello"},)


def test_text_gets_the_default_special_tokens_and_a_continuation_none(bundle: Bundle) -> None:
    plain = bundle.tokenizer("the dog", add_special_tokens=False)["input_ids"]
    assert prepare(bundle, Prompt(text="the dog")) == [bundle.tokenizer.bos_token_id, *plain]
    assert prepare(bundle, Prompt(text="the dog"), continued=True) == plain


def test_ids_are_taken_as_they_are_when_the_model_knows_them(bundle: Bundle) -> None:
    assert prepare(bundle, Prompt(ids=(3, 0, 319))) == [3, 0, 319]
    for wrong in (-1, 320):
        with pytest.raises(BadArgument, match=str(wrong)) as error:
            prepare(bundle, Prompt(ids=(1, wrong)))
        assert (error.value.name, error.value.got, error.value.want) == ("input", str(wrong), "0 to 319")


def test_a_prompt_without_tokens_is_refused(plain: Bundle) -> None:
    for prompt in (Prompt(ids=()), Prompt(text="")):
        with pytest.raises(BadArgument, match="no tokens"):
            prepare(plain, prompt, continued=True)


def test_a_part_that_is_a_text_is_one_and_several_are_refused(bundle: Bundle) -> None:
    assert prepare(bundle, Prompt(parts=("the dog",))) == prepare(bundle, Prompt(text="the dog"))
    for parts in (("the dog", "a fox"), ()):
        with pytest.raises(BadArgument, match=f"LlamaForCausalLM takes one text at a time, not {len(parts)}") as error:
            prepare(bundle, Prompt(parts=parts))
        assert error.value.name == "input"
    assert [each.text for each in each_text(Prompt(parts=("a", "b")))] == ["a", "b"]


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (MediaPart("image", memoryview(b"")), "pictures"),
        (MediaPart("audio", memoryview(b"")), "sounds"),
        (TablePart(("a",), ((1,),)), "tables"),
    ],
)
def test_what_is_no_text_is_refused_by_its_name(bundle: Bundle, part: Part, what: str) -> None:
    prompt = Prompt(parts=("look:", part))
    with pytest.raises(NotSupported, match=f"^{what} are no input of LlamaForCausalLM: a language model takes text"):
        prepare(bundle, prompt)
    assert each_text(prompt) == [prompt]


def test_parts_of_a_message_are_its_text_and_what_is_no_text_is_refused(bundle: Bundle) -> None:
    def chat(*content: Any) -> Prompt:
        return Prompt(messages=({"role": "user", "content": list(content)},))

    text = {"type": "text", "text": "hello"}
    assert prepare(bundle, chat(text)) == prepare(bundle, Prompt(messages=HELLO))
    both = Prompt(messages=({"role": "user", "content": "hello\nhello"},))
    assert prepare(bundle, chat(text, text)) == prepare(bundle, both)
    for part in ({"type": "image"}, {"type": "text", "text": 3}, "hello"):
        with pytest.raises(NotSupported, match="parts that LlamaForCausalLM does not read"):
            prepare(bundle, chat(text, part))


def test_messages_go_through_the_template_with_its_options(bundle: Bundle) -> None:
    def ids(text: str) -> list[int]:
        found: list[int] = bundle.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    assert prepare(bundle, Prompt(messages=HELLO)) == ids("<|user|>hello<|end|><|assistant|>")
    without = Prompt(messages=HELLO, template_options={"add_generation_prompt": False})
    assert prepare(bundle, without) == ids("<|user|>hello<|end|>")


def test_messages_need_a_template_and_the_template_its_fields(bundle: Bundle, plain: Bundle) -> None:
    with pytest.raises(BadArgument, match="no chat template"):
        prepare(plain, Prompt(messages=HELLO))
    for messages in ((), ({"content": "hello"},)):
        with pytest.raises(BadArgument, match="each with a role"):
            prepare(bundle, Prompt(messages=messages))
    with pytest.raises(BadArgument, match="chat_template"):
        prepare(bundle, Prompt(messages=HELLO, template_options={"chat_template": "{{ 1 }}"}))


def test_what_the_template_says_about_messages_is_passed_on(bundle: Bundle, plain: Bundle) -> None:
    plain.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    try:
        with pytest.raises(BadArgument, match="roles must alternate"):
            prepare(plain, Prompt(messages=HELLO))
    finally:
        plain.tokenizer.chat_template = None


def test_tensors_are_not_for_language_models(bundle: Bundle) -> None:
    with pytest.raises(NotSupported):
        prepare(bundle, Prompt(tensors={"x": TensorView("float32", (1,), memoryview(b"\0\0\0\0"))}))


def test_text_that_cannot_fit_is_refused_unread(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(bundle.tokenizer), "__call__", None)
    text = "a" * (bundle.about.context * 16 + 1)
    for prompt in (Prompt(text=text), Prompt(messages=({"role": "user", "content": text},))):
        with pytest.raises(TooLarge) as error:
            prepare(bundle, prompt)
        assert (error.value.limit, error.value.got) == (bundle.about.context, bundle.about.context)


def test_truncation_is_told_and_refusal_names_the_numbers(bundle: Bundle) -> None:
    text = "the quick brown fox " * 40
    ids, cut = truncated(bundle, Prompt(text=text), 5)
    assert (len(ids), cut, ids[0]) == (5, True, bundle.tokenizer.bos_token_id)
    assert truncated(bundle, Prompt(ids=(5, 6, 7)), 2) == ([5, 6], True)
    assert truncated(bundle, Prompt(ids=(5, 6, 7)), 3) == ([5, 6, 7], False)
    with pytest.raises(TooLarge) as error:
        truncated(bundle, Prompt(text=text), None)
    assert error.value.limit == bundle.about.context < error.value.got
    assert len(truncated(bundle, Prompt(text=text), 10_000)[0]) == bundle.about.context
    spaces = Prompt(text="dog" + " " * 1_000_000)
    assert truncated(bundle, spaces, 1_000)[1]
