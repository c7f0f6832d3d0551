"""Tables to Structs: what errors say."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from msgspec import Meta, field

from llmos.kernel.settings import ConfigError, Section, convert


class Inner(Section):
    threads: Annotated[int, Meta(ge=0)] = 0


class Entry(Section):
    source: str = ""


class Choice(Section):
    colour: str = ""
    size: Literal["large", "small"] = "small"


class Outer(Section):
    name: str
    inner: Inner = Inner()
    many: dict[str, Entry] = field(default_factory=dict)
    maybe: Choice | None = None


def test_a_table_that_fits() -> None:
    outer = convert({"name": "x", "inner": {"threads": 2}, "many": {"a": {}}}, Outer, "outer")
    assert outer == Outer(name="x", inner=Inner(threads=2), many={"a": Entry()})


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"nam": "x", "name": "x"}, "unknown key outer.nam; did you mean 'name'?"),
        ({"name": "x", "maybe": {"size": "huge"}}, "outer.maybe.size is 'huge'; expected one of large, small"),
        ({"name": "x", "inner": {"thread": 1}}, "unknown key outer.inner.thread; did you mean 'threads'?"),
        (
            {"name": "x", "maybe": {"zzz": 1}},
            "unknown key outer.maybe.zzz; known are colour, inner, many, maybe, name, size, source, threads",
        ),
        ({"name": "x", "many": {"a": {"sorce": 1}}}, "unknown key outer.many[...].sorce; did you mean 'source'?"),
        ({"name": "x", "maybe": {"color": 1}}, "unknown key outer.maybe.color; did you mean 'colour'?"),
        ({"name": 5}, "outer.name is 5; expected str, got int"),
        ({"name": "x", "inner": {"threads": -1}}, "outer.inner.threads is -1; expected int >= 0"),
        (
            {"name": "x", "many": {"a": 5}},
            "outer.many[...] is {'name': 'x', 'many': {'a': 5}}; expected object, got int",
        ),
        ({}, "outer: the key 'name' is missing"),
        (5, "outer is 5; expected object, got int"),
    ],
)
def test_errors_name_the_key(table: object, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        convert(table, Outer, "outer")
    assert str(error.value) == text
