"""JSON Schemas of what goes into calls and comes out of them over HTTP, from the classes of the call table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmos.syscalls.spec import CallSpec
from llmos.syscalls.types import Kind, Reason

from ..core.caller import KeyLimits
from .derive import MOST_SECONDS, offered

REF = "#/components/schemas/{name}"
_HIDDEN = frozenset({"BufferRef", "BufferOut"})
"""Places in shared memory, which nobody names over HTTP."""

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A reference to a schema of the document."""
    return {"$ref": REF.format(name=name)}


def components(bodies: Mapping[str, type[Any]]) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """All schemas by name, and a reference to each of the bodies.

    Args:
        bodies: types of the bodies of routes that are not derived from a call, by path.
    """
    specs = offered()
    results = [kind for spec in specs for kind in (spec.result, spec.item) if kind is not None]
    kinds = [*bodies.values(), *(spec.cls for spec in specs), *results, Reason, KeyLimits]
    named, found = msgspec.json.schema_components(kinds, ref_template=REF)
    made = {name: _plain(schema) for name, schema in found.items() if name not in _HIDDEN}
    for spec in specs:
        made[spec.cls.__name__] = body_of(spec, made[spec.cls.__name__])
    for name, schema in made.items():
        if "handle" in schema.get("properties", {}) and name not in {spec.cls.__name__ for spec in specs}:
            del schema["properties"]["handle"]
            schema["required"] = [each for each in schema.get("required", ()) if each != "handle"]
    return {**made, **_ours()}, dict(zip(bodies, named, strict=False))


def body_of(spec: CallSpec, schema: Schema) -> Schema:
    """The body of a call: objects by name, a timeout instead of a deadline, and no system."""
    properties = {name: each for name, each in schema["properties"].items() if name != "deadline"}
    for field in spec.fields:
        if field.is_handle and field.kind is Kind.SYSTEM:
            del properties[field.name]
        elif field.is_handle:
            properties[field.name] = _object(field.kind, field.doc, field.required)
        else:
            properties[field.name] = {**properties[field.name], "description": field.doc}
    properties["timeout"] = {
        "type": ["number", "null"], "exclusiveMinimum": 0, "maximum": MOST_SECONDS,
        "description": "seconds the call may take",
    }  # fmt: skip
    required = [name for name in schema.get("required", ()) if name in properties]
    return {**schema, "properties": properties, "required": required, "additionalProperties": False}


def _object(kind: Kind | None, doc: str, required: bool) -> Schema:
    what = f"name, id or path of a {kind.value}" if kind is not None else "`kind:name`, or the id of an object"
    text = {"type": "string", "minLength": 1, "description": f"{doc}: {what}"}
    return text if required else {"anyOf": [text, {"type": "null"}], "description": text["description"]}


def _plain(schema: Any) -> Any:
    """Without places in shared memory, and with every number as JSON can tell it: no infinity is a number there."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _plain(value) for name, value in schema.items() if name != "discriminator"}
    for choice in ("anyOf", "oneOf"):
        if choice in made:
            made[choice] = [each for each in made[choice] if not _is_hidden(each)]
            if len(made[choice]) == 1:
                made |= made.pop(choice)[0]
    return made


def _is_hidden(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("$ref", "").rpartition("/")[2] in _HIDDEN


def answer_of(value: Schema) -> Schema:
    """The answer of a call with this value."""
    return {
        "type": "object",
        "properties": {
            "value": value, "request": {"type": "string"}, "reasons": {"type": "array", "items": ref("Reason")},
        },
        "required": ["value", "request", "reasons"],
    }  # fmt: skip


def schema_of(kind: Any) -> Schema:
    """The schema of a result's type, by reference where it has a name."""
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=REF)
    plain: Schema = _plain(schema)
    return plain


def _ours() -> Mapping[str, Schema]:
    text: Schema = {"type": "string"}
    error: Schema = {
        "type": "object",
        "properties": {
            "message": text, "type": text, "param": {"type": ["string", "null"]}, "code": text,
            "fields": {"type": "object"}, "reasons": {"type": "array"},
        },
        "required": ["message", "type", "param", "code"],
    }  # fmt: skip
    limits = ref("KeyLimits")
    key: Schema = {
        "type": "object",
        "properties": {
            "key": {**text, "description": "the key itself, told only when it is made"}, "id": text, "name": text,
            "user": text, "scopes": {"type": "array", "items": text}, "models": {"type": "array", "items": text},
            "limits": limits, "created": {"type": "number"}, "expires": {"type": ["number", "null"]},
            "revoked": {"type": ["number", "null"]}, "used": {"type": ["number", "null"]},
            "state": {"enum": ["valid", "expired", "revoked"]},
        },
        "required": ["id", "name", "user", "scopes", "models", "limits", "created", "state"],
    }  # fmt: skip
    who: Schema = {
        "type": "object",
        "properties": {
            "key": text, "user": text, "scopes": {"type": "array", "items": text},
            "models": {"type": "array", "items": text}, "limits": limits, "home": text,
            "anonymous": {"type": "boolean"},
        },
        "required": ["key", "user", "scopes", "models", "limits", "home", "anonymous"],
    }  # fmt: skip
    return {
        "Error": {"type": "object", "properties": {"error": error}, "required": ["error"]},
        "PlainError": {"type": "object", "properties": {"error": text}, "required": ["error"]},
        "Key": key,
        "Whoami": who,
    }
