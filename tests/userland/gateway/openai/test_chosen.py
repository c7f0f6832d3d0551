"""From a body to the kernel's sampling."""

from __future__ import annotations

import msgspec
import pytest

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Grammar, Handle, ModelInfo, Sampling
from llmos.userland.gateway.openai.bodies import ChatBody
from llmos.userland.gateway.openai.chosen import grammar_of, response_grammar, sampling_of, stops

INFO = ModelInfo(handle=Handle(1), id="m", path="/models/m", version="1", device="null0", architecture="E", context=100)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def body(**fields: object) -> ChatBody:
    return ChatBody(model="m", messages=[{}], **fields)


def test_the_defaults_are_those_of_the_api() -> None:
    made = sampling_of(body(), INFO)
    assert made == Sampling(max_tokens=100, temperature=1.0, top_p=1.0)
    assert sampling_of(body(), msgspec.structs.replace(INFO, context=0)).max_tokens == 4096


def test_everything_that_is_said() -> None:
    made = sampling_of(
        body(
            max_tokens=7, temperature=0, top_p=0.5, n=2, stop="x", presence_penalty=1, frequency_penalty=-1,
            logit_bias={5: 2.0}, seed=-1, top_k=-1, min_p=0.1, repetition_penalty=1.1, stop_token_ids=[3],
            ignore_eos=True,
        ),
        INFO, logprobs=3, best_of=4,
    )  # fmt: skip
    assert made == Sampling(
        max_tokens=7, temperature=0.0, top_p=0.5, n=2, stop=["x"], presence_penalty=1, frequency_penalty=-1,
        logit_bias={5: 2.0}, seed=2**63 - 1, top_k=0, min_p=0.1, repetition_penalty=1.1, stop_token_ids=[3],
        ignore_eos=True, logprobs=3, best_of=4,
    )  # fmt: skip
    assert sampling_of(body(max_tokens=7), INFO, max_tokens=3).max_tokens == 3


def test_stops() -> None:
    assert stops(None) == [] and stops("a") == ["a"] and stops(["a", "", "b"]) == ["a", "b"]
    with pytest.raises(BadArgument):
        stops(["x"] * 17)


@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Grammar(json_schema={"type": "object"})),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
                }
            },
            Grammar(json_schema=SCHEMA),
        ),
        ({"guided_json": SCHEMA}, Grammar(json_schema=SCHEMA)),
        ({"guided_json": '{"type": "object"}'}, Grammar(json_schema={"type": "object"})),
        ({"guided_regex": "a+"}, Grammar(regex="a+")),
        ({"guided_choice": ["a", "b"]}, Grammar(choice=["a", "b"])),
        ({"guided_grammar": 'start: "a"'}, Grammar(lark='start: "a"')),
    ],
)
def test_what_the_answer_must_look_like(fields: dict[str, object], grammar: Grammar | None) -> None:
    assert grammar_of(body(**fields)) == grammar


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_regex"),
    ],
)
def test_what_cannot_be(fields: dict[str, object], name: str) -> None:
    with pytest.raises(BadArgument) as raised:
        grammar_of(body(**fields))
    assert raised.value.name == name


def test_the_format_of_a_response_is_flat() -> None:
    assert response_grammar({"type": "json_schema", "name": "x", "schema": SCHEMA}) == Grammar(json_schema=SCHEMA)
