"""The page head of each call."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmos.syscalls import calls
from llmos.syscalls.driver import HOST_CALLS
from llmos.syscalls.manual import json_schema, manual, spell, spell_value, text
from llmos.syscalls.spec import SYSCALLS, CallSpec
from llmos.syscalls.types import Handle, Right, Sampling, Text, Tokens
from msgspec import Meta
from strategies import bodies

assert calls.__all__
ALL = [*SYSCALLS.values(), *HOST_CALLS.values()]


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int, "int"),
        (Handle, "Handle"),
        (Handle | None, "Handle | None"),
        (Annotated[Handle, Right.READ, "doc"], "Handle"),
        (Annotated[int, Meta(ge=0, le=9)], "int[0..9]"),
        (Annotated[int, Meta(ge=0)], "int[0..]"),
        (Annotated[int, Meta(le=9)], "int[..9]"),
        (Annotated[float, Meta(gt=0, le=1)], "float[..1](0..)"),
        (Annotated[str, Meta(max_length=5)] | None, "str{..5} | None"),
        (list[Annotated[str, Meta(min_length=1)]], "list[str{1..}]"),
        (dict[str, Any], "dict[str, Any]"),
        (tuple[int, str], "tuple[int, str]"),
        (Literal["a", 1], "'a' | 1"),
        (Text | Tokens, "Text | Tokens"),
    ],
)
def test_spelling_of_types(hint: Any, expected: str) -> None:
    assert spell(hint) == expected


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", '"x"'),
        (3, "3"),
        (None, "None"),
        ([], "[]"),
        (Colour.RED, '"red"'),
        (Sampling(), "Sampling()"),
    ],
)
def test_spelling_of_defaults(value: Any, expected: str) -> None:
    assert spell_value(value) == expected


def test_a_default_that_differs_is_shown_whole() -> None:
    assert "top_k=7" in spell_value(Sampling(top_k=7))


def test_the_head_of_infer() -> None:
    page = manual(SYSCALLS["infer"])
    assert page.synopsis == (
        'infer(model, input, task="auto", sampling=Sampling(), context=None, options={}) -> Inference'
    )
    model, given_input, _, _, context, _ = page.arguments
    assert (model.needs, model.admits, model.type, model.default) == ("model, RUN", "a handle", "Handle", "")
    assert given_input.admits == "an object of type text, tokens, chat, parts or tensors"
    assert (context.admits, context.default) == ("a handle or nothing (None)", "None")
    assert [e.code for e in page.errors] == sorted(e.code for e in page.errors)


def test_the_head_of_a_stream_names_items_and_end() -> None:
    assert manual(SYSCALLS["infer_stream"]).result == "Chunk ... Inference"


def test_a_handle_of_any_kind() -> None:
    assert manual(SYSCALLS["dup_handle"]).arguments[0].needs == "any kind, DUP"
    assert manual(SYSCALLS["close_handle"]).arguments[0].needs == "any kind"
    assert manual(SYSCALLS["tune"]).arguments[0].needs == "model, READ, RUN"


@pytest.mark.parametrize("spec", SYSCALLS.values(), ids=lambda spec: spec.name)
def test_the_text_names_everything(spec: CallSpec) -> None:
    page = text(spec)
    assert page.startswith(f"NAME\n    {spec.name}: {spec.doc}\n")
    for part in (*(f.name for f in spec.fields), *(e.__name__ for e in spec.errors), "RESULT", "as from any call"):
        assert part in page
    for field in spec.fields:
        assert field.doc and field.doc in page, f"{spec.name}: {field.name} is not described"


def test_a_call_without_arguments_has_no_such_section() -> None:
    assert "ARGUMENTS" not in text(HOST_CALLS["stats"])


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.cls.__name__)
def test_every_call_has_a_schema(spec: CallSpec) -> None:
    schema = json_schema(spec)
    properties = schema["$defs"][spec.cls.__name__]["properties"]
    assert set(properties) >= {f.name for f in spec.fields} | {"deadline", "key"}
    assert properties["deadline"]["description"].startswith("absolute")
    for field in spec.fields:
        assert properties[field.name].get("description", "") == field.doc
    assert schema["$defs"][spec.cls.__name__]["additionalProperties"] is False


@given(st.data())
@settings(max_examples=30)
def test_what_the_schema_calls_required_is_what_is_required(data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from(ALL))
    required = json_schema(spec)["$defs"][spec.cls.__name__].get("required", [])
    body = data.draw(bodies(spec))
    msgspec.convert({name: body[name] for name in required}, spec.cls, builtin_types=(bytes,))
    for name in required:
        with pytest.raises(msgspec.ValidationError, match=name):
            msgspec.convert({key: body[key] for key in required if key != name}, spec.cls, builtin_types=(bytes,))
