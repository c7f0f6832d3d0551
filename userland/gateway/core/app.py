"""The whole gateway as one ASGI app: all routes behind the guard."""

from __future__ import annotations

from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from ..openai.routes import routes as openai_routes
from . import health
from .guard import Guard
from .routing import Table
from .wiring import Gateway, RouteMaker

MAKERS: tuple[RouteMaker, ...] = (health.routes, openai_routes)
"""In the order in which paths are tried."""


def all_routes() -> list[BaseRoute]:
    """Every route of the gateway."""
    return [route for make in MAKERS for route in make()]


def build(gateway: Gateway) -> ASGIApp:
    """The app that serves this gateway."""
    return Guard(gateway, Table(all_routes()))
