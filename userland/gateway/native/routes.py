"""`/api/v1`: the project's own REST, derived from the call table, with files, keys and the dashboard's live stream."""

from __future__ import annotations

from starlette.routing import BaseRoute

from . import seed
from .calling import call_routes
from .files import file_routes
from .keys import key_routes
from .live import live_routes
from .reading import reading_routes
from .runs import run_routes
from .store import store_routes


def routes() -> list[BaseRoute]:
    """All routes of this package. What is spelled out stands before what takes any path."""
    return [
        *call_routes(), *key_routes(), *live_routes(), *seed.routes(), *reading_routes(), *run_routes(),
        *store_routes(), *file_routes(),
    ]  # fmt: skip
