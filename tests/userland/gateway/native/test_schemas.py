"""Schemas of bodies and answers: as the checks of the calls have it, without handles."""

from __future__ import annotations

import json
from typing import Any

from llmos.userland.gateway.native.bodies import BODIES
from llmos.userland.gateway.native.derive import offered
from llmos.userland.gateway.native.schemas import REF, answer_of, components, schema_of

FOUND, NAMED = components(BODIES)


def walk(value: Any) -> Any:
    """Every map in a document."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def test_every_reference_leads_somewhere() -> None:
    assert json.loads(json.dumps(FOUND)) == FOUND
    prefix = REF.format(name="")
    for schema in walk(FOUND):
        if "$ref" in schema:
            assert schema["$ref"].removeprefix(prefix) in FOUND


def test_bodies_name_objects_and_seconds() -> None:
    for spec in offered():
        schema = FOUND[spec.cls.__name__]
        assert schema["additionalProperties"] is False and "deadline" not in schema["properties"]
        assert "system" not in schema["properties"] and schema["properties"]["timeout"]["type"] == ["number", "null"]
        for field in spec.fields:
            if field.name in schema["properties"]:
                assert schema["properties"][field.name]["description"]
        for name in schema["required"]:
            assert name in schema["properties"], spec.name
    model = FOUND["Infer"]["properties"]["model"]
    assert model["type"] == "string" and "name, id or path of a model" in model["description"]
    assert FOUND["Infer"]["properties"]["context"]["anyOf"][1] == {"type": "null"}


def test_no_answer_has_a_handle_and_nothing_lies_in_a_buffer() -> None:
    for name in ("ObjectInfo", "ModelInfo", "Task", "Lease", "Context"):
        assert "handle" not in FOUND[name]["properties"] and "handle" not in FOUND[name].get("required", ())
    assert not any("Buffer" in schema.get("$ref", "") for schema in walk(FOUND))
    assert FOUND["Tensor"]["properties"]["data"]["contentEncoding"] == "base64"


def test_an_answer_has_value_request_and_reasons() -> None:
    told = answer_of(schema_of(list[str]))
    assert told["required"] == ["value", "request", "reasons"] and told["properties"]["value"]["type"] == "array"
