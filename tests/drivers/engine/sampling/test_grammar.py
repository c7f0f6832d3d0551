"""Structured output: what comes out is valid, by validators that know nothing of the grammar."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import jsonschema
import pytest
import torch
from grammar_runs import Senseless
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_schemas import schemas
from tiny_models import byte_fallback, byte_level

from llmos.drivers.engine.sampling.grammar import KEPT, Grammar, GrammarCompiler
from llmos.syscalls.errors import BadArgument, Internal, NotSupported

MODELS = {"byte_level": Senseless(byte_level()), "byte_fallback": Senseless(byte_fallback())}
MODEL = MODELS["byte_level"]
END = 1
many = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def valid(schema: dict[str, Any], text: str) -> None:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(json.loads(text))


@pytest.mark.parametrize("examples", [25, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_json_parses_and_is_valid(name: str, temperature: float, examples: int) -> None:
    reasons: list[str] = []

    @settings(many, max_examples=examples)
    @given(schemas, st.integers(0, 1000), st.booleans())
    def run(schema: dict[str, Any], seed: int, ending: bool) -> None:
        ends = (END,) if ending else ()
        text, reason = MODELS[name].answer({"json_schema": schema}, temperature, seed, ends)
        reasons.append(reason)
        if reason != "length":
            valid(schema, text)

    run()
    assert reasons.count("length") < len(reasons) / 4 and "grammar" in reasons


@st.composite
def patterns(draw: st.DrawFn) -> str:
    letters = [
        "a",
        "é",
        r"\d",
        r"\.",
        "[x-z]",
        "[^a-y0-9]",
        "\n",
        r"\w",
        r"\s",
        r"\D",
        r"\W",
        "😀",
        r"\\",
        "/",
        '"',
        " ",
        "(ab|c)",
    ]
    piece = st.sampled_from(letters)
    repeat = st.sampled_from(["", "", "?", "{2}", "{1,3}", "{0,2}"])
    ored = st.lists(st.lists(st.tuples(piece, repeat).map("".join), min_size=1, max_size=3).map("".join), min_size=1)
    return "|".join(draw(ored.filter(lambda parts: len(parts) < 4)))


@pytest.mark.parametrize("name", MODELS)
@many
@given(patterns(), st.integers(0, 1000), st.sampled_from([0.0, 1.5]))
def test_a_regular_expression_matches_all_of_the_answer(name: str, pattern: str, seed: int, temperature: float) -> None:
    text, reason = MODELS[name].answer({"regex": pattern}, temperature, seed, (END,))
    assert reason in ("grammar", "stop") and re.fullmatch(pattern, text, re.ASCII)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=6)


@many
@given(st.lists(texts, min_size=1, max_size=5), st.integers(0, 1000))
def test_a_choice_is_one_of_those_given(options: list[str], seed: int) -> None:
    text, reason = MODEL.answer({"choice": options}, 1.0, seed, (END,))
    assert reason in ("grammar", "stop") and text in options


def test_every_choice_can_come() -> None:
    options = ["yes", "no", "nothing"]
    assert {MODEL.answer({"choice": options}, 1.0, seed, (END,))[0] for seed in range(60)} == set(options)


def test_a_lark_grammar_is_followed_special_tokens_too() -> None:
    calls = {"lark": 'start: <|user|> ("+" | "-") NUMBER <|end|>\nNUMBER: /[0-9]{2}/'}
    tokens, grammar = [], MODEL.compiler.compile(calls)
    size = len(MODEL.tokenizer)
    while not grammar.finished:
        tokens.append(int(grammar.mask(size).nonzero()[-1]))
        grammar.advance(tokens[-1])
    assert re.fullmatch(r"<\|user\|>[+-]\d\d<\|end\|>", MODEL.tokenizer.decode(tokens))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_mask_that_is_not_applied_is_seen(monkeypatch: pytest.MonkeyPatch, temperature: float) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    monkeypatch.setattr(Grammar, "mask", lambda self, size: torch.ones(size, dtype=torch.bool))
    with pytest.raises(Internal):
        MODEL.answer({"json_schema": schema}, temperature)


def test_an_answer_ends_only_where_the_grammar_may() -> None:
    grammar = MODEL.compiler.compile({"regex": "a+b?"}, [END])
    a, b = (MODEL.tokenizer.convert_tokens_to_ids(letter) for letter in "ab")
    size = len(MODEL.tokenizer)
    assert not grammar.allows(END) and not grammar.mask(size)[END]
    grammar.advance(a)
    assert grammar.allows(END) and grammar.mask(size)[END] and not grammar.finished
    ended = grammar.copy()
    ended.advance(END)
    assert ended.finished
    grammar.advance(b)
    assert grammar.finished


def test_without_end_tokens_an_answer_ends_when_nothing_can_follow() -> None:
    grammar = MODEL.compiler.compile({"regex": "a+"})
    size = len(MODEL.tokenizer)
    assert MODEL.answer({"regex": "a{3}"}, 0.0)[1] == "grammar"
    grammar.advance(MODEL.tokenizer.convert_tokens_to_ids("a"))
    assert not grammar.finished and not grammar.mask(size)[END]
    assert MODEL.answer({"regex": "a+"}, 0.0, limit=30) == ("a" * 30, "length")


def test_masks_are_as_wide_as_the_logits() -> None:
    grammar = MODEL.compiler.compile({"regex": "[ab]+"}, [END])
    size = len(MODEL.tokenizer)
    wide, narrow = grammar.mask(size + 100), grammar.mask(size - 10)
    assert not wide[size:].any() and torch.equal(wide[: size - 10], narrow)
    assert not grammar.allows(size + 3)
    (letter,) = (token for token in grammar.mask(size).nonzero().flatten().tolist() if token == wide.nonzero()[0])
    with pytest.raises(BadArgument, match="no token"):
        grammar.mask(letter)


@pytest.mark.parametrize("name", MODELS)
def test_a_mask_says_of_each_token_whether_it_is_allowed(name: str) -> None:
    model, size = MODELS[name], len(MODELS[name].tokenizer)
    for pattern in ("å+", "[a-f]*", r"(.|\n)+"):
        grammar = model.compiler.compile({"regex": pattern}, [END])
        for _ in range(3):
            mask = grammar.mask(size).tolist()
            assert mask == [grammar.allows(token) for token in range(size)] and any(mask)
            grammar.advance(max(token for token in range(size) if mask[token] and token != END))


def test_the_last_token_of_a_tokenizer_can_come() -> None:
    model = MODELS["byte_fallback"]
    last = len(model.tokenizer) - 1
    text = model.vocabulary.bytes_of(last).decode()
    assert model.compiler.compile({"choice": [text]}).mask(last + 1)[last]


def test_a_copy_goes_its_own_way() -> None:
    grammar = MODEL.compiler.compile({"regex": "ab"})
    a, b = (MODEL.tokenizer.convert_tokens_to_ids(letter) for letter in "ab")
    other = grammar.copy()
    other.advance(a)
    assert grammar.allows(a) and not grammar.allows(b) and other.allows(b)


def test_taken_back_tokens_never_came() -> None:
    grammar = MODEL.compiler.compile({"regex": "abc?"}, [END])
    a, b, c = (MODEL.tokenizer.convert_tokens_to_ids(letter) for letter in "abc")
    size = len(MODEL.tokenizer)
    masks = []
    for token in (a, b, END):
        masks.append(grammar.mask(size))
        grammar.advance(token)
    assert grammar.finished
    for count, at in ((1, 2), (1, 1), (1, 0)):
        grammar.rollback(count)
        assert torch.equal(grammar.mask(size), masks[at]) and not grammar.finished
    for token in (a, b, c):
        grammar.advance(token)
    assert grammar.finished
    grammar.rollback(3)
    assert torch.equal(grammar.mask(size), masks[0])
    grammar.rollback(0)


def test_states_of_one_grammar_are_independent_and_it_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = GrammarCompiler(MODEL.tokenizer, MODEL.vocabulary)
    compiled: list[str] = []
    original = GrammarCompiler._compile
    monkeypatch.setattr(
        GrammarCompiler, "_compile", lambda self, kind, source: compiled.append(source) or original(self, kind, source)
    )
    first, second = compiler.compile({"regex": "ab"}), compiler.compile({"regex": "ab", "lark": None})
    first.advance(MODEL.tokenizer.convert_tokens_to_ids("a"))
    assert compiled == ["ab"] and not torch.equal(first.mask(320), second.mask(320))
    for count in range(KEPT):
        compiler.compile({"regex": f"a{{{count + 1}}}"})
    assert len(compiled) == KEPT + 1
    compiler.compile({"regex": "a{1}"})
    compiler.compile({"regex": "ab"})
    assert len(compiled) == KEPT + 2


def test_properties_come_in_their_order_and_white_space_is_bounded() -> None:
    def both(*names: str) -> dict[str, Any]:
        ones = {name: {"const": 1} for name in names}
        return {"json_schema": {"properties": ones, "required": names, "type": "object"}}

    assert list(json.loads(MODEL.answer(both("a", "b"))[0])) == ["a", "b"]
    assert list(json.loads(MODEL.answer(both("b", "a"))[0])) == ["b", "a"]
    grammar = MODEL.compiler.compile(both("a"))
    size, space = len(MODEL.tokenizer), MODEL.tokenizer.convert_tokens_to_ids("Ġ")
    grammar.advance(MODEL.tokenizer.convert_tokens_to_ids("{"))
    spaces = 0
    while grammar.mask(size)[space]:
        grammar.advance(space)
        spaces += 1
    assert spaces == 24


def test_a_schema_may_say_how_its_json_is_written() -> None:
    schema = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2, "maxItems": 2}
    for seed in range(10):
        compact = MODEL.answer({"json_schema": {**schema, "x-guidance": {"whitespace_flexible": False}}}, 1.0, seed)[0]
        assert re.fullmatch(r"\[\d,\d\]", compact)
        spaced = {"whitespace_pattern": " ", "item_separator": ", "}
        text = MODEL.answer({"json_schema": {**schema, "x-guidance": spaced}}, 1.0, seed)[0]
        assert re.fullmatch(r"\[ ?\d ?, ?\d ?\]", text.replace(",  ", ", "))
        json.loads(text)


@pytest.mark.parametrize(
    ("schema", "keyword", "place"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems", "/"),
        ({"properties": {"a/b": {"items": {"not": {}}}}}, "not", "/properties/a~1b/items"),
        ({"$defs": {"x": {"anyOf": [{}, {"format": "iri"}]}}, "$ref": "#/$defs/x"}, "format", "/$defs/x/anyOf/1"),
        ({"allOf": [{"contains": {}}]}, "contains", "/allOf/0"),
        ({"oneOf": [{"const": 1}, {"const": 2}]}, "oneOf", "/"),
        ({"properties": {"a": {"pattern": "(?=a)"}}}, "pattern", "/properties/a"),
        ({"properties": {"a": {"$ref": "https://example.org/x"}}}, "$ref", "/properties/a"),
        ({"items": {"minProperties": 3, "required": ["a"]}}, "minProperties", "/items"),
        ({"x-guidance": {"lenient": True}, "if": {"type": "string"}}, "if", "/"),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_is_refused_with_keyword_and_place(schema: Any, keyword: str, place: str) -> None:
    with pytest.raises(NotSupported) as error:
        MODEL.compiler.compile({"json_schema": schema})
    assert error.value.why.startswith(f"{keyword} at {place}: ")


@pytest.mark.parametrize(
    ("grammar", "name"),
    [
        ({}, "grammar"),
        ({"regex": "a", "lark": 'start: "a"'}, "grammar"),
        ({"ebnf": "a"}, "grammar"),
        ({"regex": 3}, "grammar.regex"),
        ({"regex": ""}, "grammar.regex"),
        ({"regex": "a("}, "grammar.regex"),
        ({"regex": r"a\b"}, "grammar.regex"),
        ({"lark": "begin: x"}, "grammar.lark"),
        ({"lark": "start: <|nobody|>"}, "grammar.lark"),
        ({"choice": []}, "grammar.choice"),
        ({"choice": ["a", ""]}, "grammar.choice"),
        ({"choice": "abc"}, "grammar.choice"),
        ({"json_schema": "{}"}, "grammar.json_schema"),
        ({"json_schema": {"const": {1, 2}}}, "grammar.json_schema"),
        ({"json_schema": {"maximum": float("nan")}}, "grammar.json_schema"),
        ({"json_schema": {"type": "frog"}}, "grammar.json_schema"),
        ({"json_schema": {"type": "integer", "minimum": 3, "maximum": 2}}, "grammar.json_schema"),
        ({"json_schema": {"properties": {"a": {"items": {"type": "frog"}}}}}, "grammar.json_schema/properties/a/items"),
    ],
)  # fmt: skip
def test_what_is_no_grammar_is_refused_with_its_place(grammar: Any, name: str) -> None:
    with pytest.raises(BadArgument) as error:
        MODEL.compiler.compile(grammar)
    assert error.value.name.startswith(name) and error.value.want
    MODEL.answer({"regex": "a"})


def test_a_schema_too_deep_to_write_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(BadArgument):
        MODEL.compiler.compile({"json_schema": schema})


def test_any_json_is_a_schema_too() -> None:
    text, reason = MODEL.answer({"json_schema": {}}, 1.0, 3, (END,))
    assert reason != "length"
    json.loads(text)


def test_a_grammar_that_gets_too_complex_on_the_way_is_an_error_of_the_request() -> None:
    ambiguous = 'start: item+\nitem: "a" | "a" item | item "a" | item item'
    grammar = MODEL.compiler.compile({"lark": ambiguous})
    letter = MODEL.tokenizer.convert_tokens_to_ids("a")
    with pytest.raises(BadArgument) as error:
        for _ in range(1000):
            grammar.advance(letter)
    assert error.value.name == "grammar"


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(NotSupported, match="pip install llguidance"):
        GrammarCompiler(MODEL.tokenizer, MODEL.vocabulary).compile({"regex": "a"})
