"""Types in words, and the way along a path."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from llmos.syscalls.describe import field_names, find, key_words, node_of, suggest, words
from llmos.syscalls.driver import HOST_CALLS
from llmos.syscalls.spec import SYSCALLS
from llmos.syscalls.types import Bytes, Image, Input, Kind, Quant, Sampling, Text
from msgspec import Meta
from msgspec import inspect as mi


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (int, "an integer"),
        (Annotated[int, Meta(ge=1)], "an integer of at least 1"),
        (Annotated[int, Meta(le=9)], "an integer of at most 9"),
        (Annotated[int, Meta(ge=1, le=9)], "an integer from 1 to 9"),
        (Annotated[float, Meta(gt=0, lt=1)], "a number above 0 and below 1"),
        (Annotated[float, Meta(ge=0, lt=1)], "a number of at least 0 and below 1"),
        (str, "text"),
        (Annotated[str, Meta(min_length=1)], "text of at least 1 character"),
        (Annotated[str, Meta(min_length=2, max_length=3)], "text of at least 2 characters and at most 3 characters"),
        (Annotated[str, Meta(description="ignored")], "text"),
        (bool, "true or false"),
        (bytes, "bytes"),
        (Any, "anything"),
        (int | None, "an integer or nothing (None)"),
        (Kind, "one of session, system, device, driver, model, context, lease, buffer, file, mount, task"),
        (Literal["a", "b"], "one of a, b"),
        (list[str], "a list, each text"),
        (frozenset[int], "a list, each an integer"),
        (tuple[int, str], "a list of an integer, text"),
        (dict[str, float], "a map from text to a number"),
        (Sampling, "an object Sampling"),
        (Text, "an object of type text"),
        (Input, "an object of type text, tokens, chat, parts or tensors"),
        (Bytes, "an object of type buffer or bytes"),
        (Quant | None, "an object Quant or nothing (None)"),
    ],
)
def test_words(cls: Any, expected: str) -> None:
    assert words(node_of(cls)) == expected


@pytest.mark.parametrize("spec", [*SYSCALLS.values(), *HOST_CALLS.values()], ids=lambda spec: spec.cls.__name__)
def test_every_type_of_the_contract_has_words(spec: Any) -> None:
    for node in (*(f.type for f in node_of(spec.cls).fields), node_of(spec.result)):  # type: ignore[attr-defined]
        assert words(node)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "an object Infer"),
        ("model", "an integer"),
        ("sampling.stop[3]", "text of at least 1 character"),
        ("sampling.logit_bias[...]", "a number"),
        ("sampling.grammar.regex", "text or nothing (None)"),
        ("input.ids[0]", "an integer of at least 0"),
        ("input.type", "one of text, tokens, chat, parts, tensors"),
        ("input.parts[0].type", "one of text, image, audio, video, table"),
    ],
)
def test_a_path_leads_to_its_type(path: str, expected: str) -> None:
    node = find(node_of(SYSCALLS["infer"].cls), path)
    assert node is not None
    assert words(node) == expected


@pytest.mark.parametrize("path", ["nothing", "model.more", "model[0]", "sampling.stop.x", "input.nothing", "input[0]"])
def test_a_path_to_nowhere_leads_to_nothing(path: str) -> None:
    assert find(node_of(SYSCALLS["infer"].cls), path) is None


def test_a_path_leads_through_sets_tuples_and_described_types() -> None:
    assert find(node_of(frozenset[int]), "[0]") == mi.IntType()
    assert find(node_of(tuple[int, str]), "[1]") == mi.StrType()
    described = Annotated[list[Annotated[int, Meta(description="a size")]], Meta(description="sizes")]
    assert words(find(node_of(described), "[0]") or mi.AnyType()) == "an integer"


def test_fields_of_an_object() -> None:
    assert field_names(node_of(Image), {}) == ["data", "path"]
    assert field_names(node_of(Input), {"type": "tokens"}) == ["ids"]
    assert "messages" in field_names(node_of(Input), {}) and "ids" in field_names(node_of(Input), None)
    assert field_names(node_of(int), {}) == []


def test_keys_of_a_map() -> None:
    assert key_words(node_of(dict[int, str])) == "an integer"
    assert key_words(node_of(Sampling)) == "text"


def test_suggestions() -> None:
    assert suggest("listne", ["paths", "listen"]) == "did you mean 'listen'?"
    assert suggest("x", {"paths": 1, "listen": 2}) == "known are listen, paths"
    assert suggest("listne" + "e" * 10**6, ["listen"]) == "known are listen"
