"""The whole gateway as one ASGI app: all routes behind the guard."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from llmos.userland.dashboard import pages

from ..native import openapi
from ..native.kserve import routes as kserve_routes
from ..native.routes import routes as native_routes
from ..ollama.routes import routes as ollama_routes
from ..openai.routes import routes as openai_routes
from . import health, metrics
from .caller import gateway_of
from .guard import Guard
from .routing import Table
from .wiring import Gateway, RouteMaker


async def sign_in(request: Request, key: str) -> bool:
    """Whether a key opens the dashboard."""
    return gateway_of(request).keys.find(key, time.time()) is not None


def dashboard_routes() -> list[BaseRoute]:
    """The pages, which tell nothing of the system by themselves."""
    return pages.routes(sign_in)


MAKERS: tuple[RouteMaker, ...] = (
    health.routes, metrics.routes, openai_routes, native_routes, ollama_routes, kserve_routes,
    dashboard_routes,
)  # fmt: skip
"""In the order in which paths are tried."""


def all_routes() -> list[BaseRoute]:
    """Every route of the gateway."""
    made = [route for make in MAKERS for route in make()]
    return [*made, *openapi.routes(made)]


def build(gateway: Gateway) -> ASGIApp:
    """The app that serves this gateway."""
    return Guard(gateway, Table(all_routes()))
