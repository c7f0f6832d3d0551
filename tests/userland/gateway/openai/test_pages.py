"""Lists in pages."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from llmos.syscalls.errors import BadArgument
from llmos.userland.gateway.openai.pages import page

ITEMS = [{"id": name} for name in "dcba"]


def asked(query: str) -> Any:
    request = Request({"type": "http", "query_string": query.encode(), "headers": []})
    return page(request, ITEMS, 3)


def test_pages() -> None:
    first = asked("")
    assert [item["id"] for item in first["data"]] == ["d", "c", "b"] and first["has_more"] is True
    assert (first["first_id"], first["last_id"]) == ("d", "b")
    second = asked("after=b&limit=2")
    assert [item["id"] for item in second["data"]] == ["a"] and second["has_more"] is False
    assert [item["id"] for item in asked("order=asc&limit=2")["data"]] == ["a", "b"]
    assert asked("after=unknown")["data"] == [] and asked("after=unknown")["first_id"] is None


@pytest.mark.parametrize("limit", ["0", "x", "-1", "10001", "²"])
def test_a_limit_that_cannot_be(limit: str) -> None:
    with pytest.raises(BadArgument):
        asked(f"limit={limit}")
