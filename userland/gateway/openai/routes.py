"""All routes of the OpenAI API."""

from __future__ import annotations

from starlette.routing import BaseRoute


def routes() -> list[BaseRoute]:
    """The routes, each with its scope."""
    return []
