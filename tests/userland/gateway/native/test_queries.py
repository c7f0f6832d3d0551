"""Parameters of the query, checked against the one table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from llmos.syscalls.errors import BadArgument
from llmos.userland.gateway.native.queries import QUERIES, json_word, number, words


def request(route: str, query: str = "") -> Request:
    return Request({"type": "http", "query_string": query.encode(), "headers": [], "state": {"route": route}})


JOURNAL = "/api/v1/journal"


def test_what_the_table_names_may_be_said_once() -> None:
    assert words(request(JOURNAL, "after=5&about=x%20y")) == {"after": "5", "about": "x y"}
    assert words(request("/elsewhere")) == {}
    for query, name in (("x=1", "x"), ("after=1&after=1", "after"), ("level=loud", "level")):
        with pytest.raises(BadArgument) as raised:
            words(request(JOURNAL, query))
        assert raised.value.name == name
    with pytest.raises(BadArgument, match="missing"):
        words(request("/api/v1/plan"))


@given(st.text(alphabet="0123456789-+ ._eE٣", max_size=25))
def test_a_number_is_a_whole_number_within_its_limits(text: str) -> None:
    try:
        found = number({"limit": text}, request(JOURNAL), "limit")
    except BadArgument as error:
        assert error.name == "limit"
        assert not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= 10_000)
        return
    assert found == int(text) and 1 <= found <= 10_000


def test_a_number_that_is_not_said_is_the_default() -> None:
    assert number({}, request(JOURNAL), "after") == -1 and number({"after": "-1"}, request(JOURNAL), "after") == -1
    with pytest.raises(BadArgument):
        number({}, request("/api/v1/plan"), "max_context")


@pytest.mark.parametrize(("text", "value"), [("{}", {}), ('{"a":[1]}', {"a": [1]}), ("", {}), (None, {})])
def test_an_object(text: str | None, value: Any) -> None:
    assert json_word({} if text is None else {"filters": text}, "filters") == value


@pytest.mark.parametrize("text", ["[]", "5", "{", "\ud800", '{"a":' + "[" * 5000])
def test_what_is_no_object(text: str) -> None:
    with pytest.raises(BadArgument) as raised:
        json_word({"filters": text}, "filters")
    assert raised.value.name == "filters"


def test_every_parameter_says_what_it_is() -> None:
    for route, parameters in QUERIES.items():
        for name, parameter in parameters.items():
            assert parameter["description"] and ("schema" in parameter) != ("content" in parameter), (route, name)
