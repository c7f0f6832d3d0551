"""Routes with the scope that each needs, and the table that finds them.

A handler takes a starlette `Request` and gives an ASGI app, such as a `Response` or an `EventStream`. Wrapped in
`requires` it runs only for callers with that scope; what it raises becomes an answer in the right form (`guard`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from .errors import Failure, HttpError
from .scopes import Scope

Handler = Callable[[Request], Awaitable[ASGIApp]]

ErrorForm = Callable[[Failure, Request], Response]
"""How an API tells errors: `respond.error_response` for that of OpenAI."""


class Guarded:
    """A handler with the scope that it needs; an ASGI app, so that starlette's routes take it as it is."""

    def __init__(self, scope: Scope | None, handler: Handler, form: ErrorForm | None = None) -> None:
        self.scope = scope
        self.handler = handler
        self.form = form

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        if self.form is not None:
            connection["state"]["error_form"] = self.form
        if self.scope is not None:
            connection["state"]["caller"].need(self.scope)
        response = await self.handler(Request(connection, receive, send))
        await response(connection, receive, send)


def requires(scope: Scope, handler: Handler, form: ErrorForm | None = None) -> Guarded:
    """The handler for callers with the scope: `Route("/v1/models", requires("read", models), methods=["GET"])`.

    Args:
        scope: see `scopes`.
        handler: answers the request.
        form: how its errors are told; by default as the OpenAI API does.
    """
    return Guarded(scope, handler, form)


def public(handler: Handler) -> Guarded:
    """A handler of a path that needs no key (`scopes.PUBLIC`)."""
    return Guarded(None, handler)


def scope_of(route: BaseRoute) -> Scope | None:
    """The scope that a route needs; None for a public one."""
    endpoint = route.endpoint if isinstance(route, Route) else None
    return endpoint.scope if isinstance(endpoint, Guarded) else None


class Table:
    """All routes. Paths without parameters are looked up; the others are tried in their order.

    Raises (while serving):
        HttpError: 404 and 405.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self.routes = list(routes)
        self._fixed: dict[tuple[str, str], Route] = {}
        for route in self.routes:
            if isinstance(route, Route) and "{" not in route.path:
                for method in route.methods or ():
                    self._fixed.setdefault((method, route.path), route)

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        path = connection["path"]
        route = self._fixed.get((connection["method"], path))
        if route is not None:
            connection["state"]["route"] = path
            connection["path_params"] = {}
            await route.app(connection, receive, send)
            return
        await self._find(connection, receive, send)

    async def _find(self, connection: Connection, receive: Receive, send: Send) -> None:
        allowed: set[str] = set()
        for route in self.routes:
            match, found = route.matches(connection)
            if match is Match.FULL:
                connection.update(found)
                connection["state"]["route"] = getattr(route, "path", "")
                await route.handle(connection, receive, send)
                return
            if match is Match.PARTIAL:
                allowed |= getattr(route, "methods", None) or set()
        if allowed:
            raise method_not_allowed(connection["method"], allowed)
        raise HttpError(404, "not_found_error", "unknown_route", f"there is nothing at {connection['path']}")

    def error_form(self, connection: Connection) -> ErrorForm | None:
        """How the API at a path tells errors, for those that come before its handler; None for the usual way."""
        for route in self.routes:
            if isinstance(route, Route) and isinstance(route.endpoint, Guarded) and route.endpoint.form is not None:
                match, _ = route.matches(connection)
                if match is not Match.NONE:
                    return route.endpoint.form
        return None


def method_not_allowed(method: str, allowed: set[str]) -> HttpError:
    """405, with what is allowed."""
    names = ", ".join(sorted(allowed))
    text = f"{method} is not offered here; use {names}"
    return HttpError(405, "invalid_request_error", "method_not_allowed", text, headers={"Allow": names})
