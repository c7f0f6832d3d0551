"""The names of scopes, and what needs none."""

from __future__ import annotations

import pytest

from llmos.userland.gateway.core.scopes import PUBLIC, SCOPES, is_page, is_public


def test_the_scopes() -> None:
    assert sorted(SCOPES) == ["admin", "files", "infer", "load", "manage", "read", "tune"]


@pytest.mark.parametrize("path", [*sorted(PUBLIC), "/dashboard/static/app.js"])
def test_public(path: str) -> None:
    assert is_public(path)


@pytest.mark.parametrize(
    "path", ["/health", "/health/live/", "/health/ready", "/dashboard/", "/dashboard/static", "/v1/models", "//x"]
)  # fmt: skip
def test_everything_else_needs_a_key(path: str) -> None:
    assert not is_public(path)


def test_the_pages_of_the_dashboard() -> None:
    assert all(is_page(path) for path in ("/", "/dashboard", "/dashboard/static/app.js"))
    assert not any(is_page(path) for path in ("/dashboard/login", "/dashboard/logout", "/health/live", "/v1/models"))
