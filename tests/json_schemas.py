"""Random JSON Schemas of what structured output enforces."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "name", "ähre", 'quo"te', "x y", "long_property_name"])
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-50, 50), st.text('ab"\\é😀\n', max_size=4))


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.integers(0, 3))
    if kind == 0:
        least = draw(st.integers(0, 4))
        return {"type": "string", "minLength": least, "maxLength": least + draw(st.integers(0, 6))}
    if kind == 1:
        patterns = ["^[a-c]{2,4}$", r"^\d{3}-\d{2}$", "^(x|yz)+$", "b"]
        return {"type": "string", "pattern": draw(st.sampled_from(patterns))}
    if kind == 2:
        return {"type": "string", "format": draw(st.sampled_from(["date", "ipv4", "uuid", "time", "email"]))}
    return {"type": "string"}


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.integers(-200, 200))
    made: dict[str, Any] = {"type": draw(st.sampled_from(["integer", "number"]))}
    if draw(st.booleans()):
        made[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = low
    if draw(st.booleans()):
        made[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = low + draw(st.integers(5, 300))
    if made["type"] == "integer" and draw(st.booleans()):
        made["multipleOf"] = draw(st.integers(1, 4))
    return made


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    properties = draw(st.dictionaries(NAMES, inner, max_size=3))
    made: dict[str, Any] = {"type": "object", "properties": properties}
    if properties:
        made["required"] = draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
    closed = draw(st.integers(0, 3))
    if closed == 0:
        made["additionalProperties"] = False
    elif closed == 1:
        made |= {"patternProperties": {"^p[0-9]$": draw(inner)}, "additionalProperties": False}
    elif closed == 2:
        made["additionalProperties"] = draw(inner)
        made["required"] = sorted(properties)
        made["minProperties"] = len(properties) + draw(st.integers(0, 1))
        made["maxProperties"] = len(properties) + 2
    return made


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    least = draw(st.integers(0, 2))
    made: dict[str, Any] = {"type": "array", "items": draw(inner), "minItems": least}
    made["maxItems"] = least + draw(st.integers(0, 2))
    if draw(st.booleans()):
        made["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=2))
    return made


def _deeper(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        objects(inner),
        arrays(inner),
        several.map(lambda parts: {"anyOf": parts}),
        st.tuples(strings(), numbers()).map(lambda parts: {"oneOf": list(parts)}),
        inner.map(lambda part: {"allOf": [part]}),
    )


_simple = st.one_of(
    strings(), numbers(), st.just({"type": "boolean"}), st.just({"type": ["null", "boolean"]}),
    VALUES.map(lambda value: {"const": value}),
    st.lists(VALUES, min_size=1, max_size=4).map(lambda values: {"enum": values}),
)  # fmt: skip

_trees = st.recursive(_simple, _deeper, max_leaves=6)


def _referring(part: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    refer = {"$ref": "#/$defs/part"}
    return {
        "$defs": {"part": part}, "type": "object", "properties": {"x": refer, "y": other, "z": refer},
        "required": ["y", "z"], "additionalProperties": False,
    }  # fmt: skip


schemas: st.SearchStrategy[dict[str, Any]] = st.one_of(_trees, _trees, st.builds(_referring, _trees, _trees))
