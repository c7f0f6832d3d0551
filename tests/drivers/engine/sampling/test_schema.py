"""Finding the keyword that is to blame, with a compiler that dislikes some."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.engine.sampling.schema import MOST_TRIALS, Schema, dumped, refusal, walk
from llmos.syscalls.errors import BadArgument, NotSupported


def dislikes(keyword: str, message: str) -> Any:
    def compiles(schema: Schema) -> str:
        return message if any(keyword in part for _, part in walk(schema)) else ""

    return compiles


SCHEMA = {
    "type": "object",
    "properties": {"a": {"anyOf": [{"type": "string"}, {"items": {"type": "integer", "odd": 1}}]}, "odd": {}},
    "required": ["a"],
}


@pytest.mark.parametrize(
    ("message", "kind"), [("odd is not supported", NotSupported), ("odd must not be 1", BadArgument)]
)
def test_the_innermost_place_is_named(message: str, kind: type) -> None:
    error = refusal(SCHEMA, dislikes("odd", message))
    assert isinstance(error, kind) and f"odd at /properties/a/anyOf/1/items: {message}" in str(error)


def test_a_property_that_is_called_as_a_keyword_is_not_to_blame() -> None:
    assert refusal({"properties": {"odd": {}}}, dislikes("odd", "not supported")) is None
    assert refusal({"properties": {"minProperties": {"type": "integer"}}}, lambda schema: "") is None


def test_what_fails_only_as_a_whole_is_blamed_as_a_whole() -> None:
    error = refusal({"type": "string", "minLength": 1}, lambda schema: "too large")
    assert isinstance(error, BadArgument) and error.name == "grammar.json_schema"
    assert "schema at /: too large" in str(error)


def test_definitions_are_there_for_every_part() -> None:
    def compiles(schema: Schema) -> str:
        if any("$ref" in part for _, part in walk(schema)) and "$defs" not in schema:
            return "no such definition"
        return dislikes("odd", "not supported")(schema)

    schema = {"$defs": {"x": {}}, "properties": {"a": {"allOf": [{"$ref": "#/$defs/x", "odd": 1}]}}}
    error = refusal(schema, compiles)
    assert isinstance(error, NotSupported) and error.why.startswith("odd at /properties/a/allOf/0: ")


def test_looking_for_the_place_ends() -> None:
    calls: list[Schema] = []

    def compiles(schema: Schema) -> str:
        calls.append(schema)
        return "not supported" if len(schema.get("properties", {})) > 1 else ""

    schema = {"properties": {str(name): {"type": "string"} for name in range(10 * MOST_TRIALS)}}
    assert isinstance(refusal(schema, compiles), NotSupported)
    assert len(calls) < MOST_TRIALS + 10


@given(st.integers(0, 5), st.lists(st.sampled_from("abcd"), unique=True))
def test_a_number_of_properties_that_repetition_could_fake_is_refused(fewest: int, required: list[str]) -> None:
    error = refusal({"items": {"minProperties": fewest, "required": required}}, lambda schema: "")
    assert (error is not None) == (fewest > len(required) + 1)


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), b"x"])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(BadArgument):
        dumped({"const": value})
    assert dumped({"b": "é", "a": None}) == '{"b": "é", "a": null}'
