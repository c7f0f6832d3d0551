"""The routes of Ollama's API."""

from __future__ import annotations

from starlette.routing import Route

from llmos.userland.gateway.core.routing import scope_of
from llmos.userland.gateway.ollama.routes import routes
from llmos.userland.gateway.ollama.writing import error_response


def test_every_route_has_its_scope_and_tells_errors_as_ollama_does() -> None:
    found = {route.path: route for route in routes() if isinstance(route, Route)}
    scopes = {path.removeprefix("/api/"): scope_of(route) for path, route in found.items()}
    assert scopes == {
        "chat": "infer", "generate": "infer", "embed": "infer", "embeddings": "infer", "tags": "read", "ps": "read",
        "show": "read", "version": "read", "pull": "manage", "delete": "manage",
    }  # fmt: skip
    assert all(route.endpoint.form is error_response for route in found.values())
