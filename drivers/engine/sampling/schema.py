"""Which keyword of a JSON Schema, and where in it, cannot be enforced."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmos.syscalls.errors import BadArgument, LlmosError, NotSupported

Schema = Mapping[str, Any]
Compile = Callable[[Schema], str]
"""Why a schema cannot be compiled; empty when it can."""

MOST_TRIALS = 500
ONE = (
    "items", "additionalItems", "additionalProperties", "contains", "propertyNames", "unevaluatedItems",
    "unevaluatedProperties", "not", "if", "then", "else",
)  # fmt: skip
SEVERAL = ("anyOf", "allOf", "oneOf", "prefixItems", "items")
NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
SHARED = ("$defs", "definitions", "$schema")
UNSUPPORTED = ("nimplemented", "not supported", "Unknown format", "not present in a registry")
"""Marks of messages about what is right but not enforced; any other message is about a schema that is wrong."""


def refusal(schema: Schema, compiles: Compile) -> LlmosError | None:
    """Why a schema is refused: NotSupported for what cannot be enforced, BadArgument for what is no schema."""
    message = compiles(schema)
    if message:
        pointer, keyword = _blame(schema, message, compiles)
        where, said = f"{keyword or 'schema'} at {pointer or '/'}", " ".join(message.split())
        if any(mark in message for mark in UNSUPPORTED):
            return _not_kept(where, said)
        text = f"the JSON schema is wrong: {where}: {said}"
        return BadArgument(text, name=f"grammar.json_schema{pointer}", got=where, want=said)
    for pointer, part in walk(schema):
        if unkept := _unkept(part):
            keyword, why = unkept
            return _not_kept(f"{keyword} at {pointer or '/'}", why)
    return None


def walk(schema: Schema, pointer: str = "") -> Iterator[tuple[str, Schema]]:
    """A schema and all in it, each with its JSON Pointer (RFC 6901)."""
    yield pointer, schema
    for at, part in children(schema):
        yield from walk(part, pointer + at)


def children(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """The schemas directly in a schema, with the rest of their pointers."""
    found: list[tuple[str, Any]] = [(f"/{key}", schema.get(key)) for key in ONE]
    for key in SEVERAL:
        if isinstance(schema.get(key), list):
            found += [(f"/{key}/{at}", part) for at, part in enumerate(schema[key])]
    for key in NAMED:
        if isinstance(schema.get(key), Mapping):
            found += [(f"/{key}/{_escaped(name)}", part) for name, part in schema[key].items()]
    yield from ((at, part) for at, part in found if isinstance(part, Mapping))


def _unkept(schema: Schema) -> tuple[str, str] | None:
    """A keyword that the grammar takes and does not keep in all cases, and why."""
    fewest = schema.get("minProperties", 0)
    required = schema.get("required", [])
    if isinstance(fewest, int) and isinstance(required, list) and fewest > len(required) + 1:
        return "minProperties", "a grammar does not see that a name comes twice; name the properties in `required`"
    return None


def _blame(schema: Schema, message: str, compiles: Compile) -> tuple[str, str]:
    """The pointer of the innermost part that fails alone in the same way, and the keyword without which it does not."""
    pointer, trials = "", MOST_TRIALS
    shared = {key: schema[key] for key in SHARED if key in schema}
    inside = True
    while inside:
        inside = False
        for at, part in children(schema):
            trials -= 1
            if trials > 0 and compiles({**shared, **part}) == message:
                pointer, schema, inside = pointer + at, part, True
                break
    for key in schema:
        if compiles({**shared, **{other: value for other, value in schema.items() if other != key}}) != message:
            return pointer, key
    return pointer, ""


def _not_kept(where: str, why: str) -> NotSupported:
    return NotSupported(f"the JSON schema cannot be enforced: {where}: {why}", why=f"{where}: {why}")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def dumped(schema: Schema) -> str:
    """As JSON text, properties in their order. Raises BadArgument for what is not JSON."""
    try:
        return json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        got = str(error)[:200]
        said = f"the JSON schema is not JSON: {got}"
        raise BadArgument(said, name="grammar.json_schema", got=got, want="JSON") from error
