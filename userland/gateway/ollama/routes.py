"""All routes of Ollama's API."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from ..core.routing import Handler, requires
from ..core.scopes import Scope
from .asking import chat, generate
from .embedding import embed, embeddings
from .models import delete, ps, show, tags, version
from .pulling import pull
from .writing import error_response


def routes() -> list[BaseRoute]:
    """The routes, each with its scope."""

    def route(method: str, name: str, scope: Scope, handler: Handler) -> Route:
        return Route(f"/api/{name}", requires(scope, handler, error_response), methods=[method])

    return [
        route("POST", "chat", "infer", chat),
        route("POST", "generate", "infer", generate),
        route("POST", "embed", "infer", embed),
        route("POST", "embeddings", "infer", embeddings),
        route("GET", "tags", "read", tags),
        route("GET", "ps", "read", ps),
        route("POST", "show", "read", show),
        route("GET", "version", "read", version),
        route("POST", "pull", "manage", pull),
        route("DELETE", "delete", "manage", delete),
    ]
