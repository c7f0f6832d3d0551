"""All routes together."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.routing import Route

from llmos.userland.gateway.core.app import all_routes


def test_no_two_routes_answer_the_same() -> None:
    seen: set[tuple[str, str]] = set()
    for route in all_routes():
        assert isinstance(route, Route)
        for method in route.methods or ():
            key = (method, re.sub(r"{[^}]*}", "{}", route.path))
            assert key not in seen, key
            seen.add(key)


def test_the_page_tells_of_every_route_of_the_openai_api(root: Path) -> None:
    from llmos.userland.gateway.openai.routes import routes

    page = (root / "docs/http.md").read_text()
    for route in routes():
        assert isinstance(route, Route)
        name = route.path.partition("{")[0].rstrip("/").removeprefix("/v1").rpartition("/")[2]
        assert name in page, route.path
