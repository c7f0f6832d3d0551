"""`GET /api/v1/live`: what the dashboard shows, as server-sent events (WHATWG HTML, 9.2).

At first `past` and `points`: figures and curves from before. Then `overview` once a second, `journal` and `event` as
they happen, `point` for curves of tasks, `gone` and `back` when the kernel leaves and returns. The id of an event is
the number of its journal record, so that a browser that comes back (`Last-Event-ID`) misses none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from llmos.syscalls.errors import BadArgument

from ..core.caller import caller_of, gateway_of
from ..core.respond import EventStream
from ..core.routing import requires
from .poller import Poller, Viewer
from .queries import ROOT, number, words

PARTS = ("overview", "journal", "events")
_QUIET_S = 15.0
"""After so long without an event a comment shows that the stream lives."""
_RETRY = b"retry: 1000\n\n"


class Hub:
    """The pollers, one for each tenant that somebody looks at."""

    def __init__(self) -> None:
        self._pollers: dict[str, Poller] = {}

    async def live(self, request: Request) -> ASGIApp:
        """What the dashboard shows, as server-sent events."""
        given = words(request)
        parts = _parts(given.get("parts", ",".join(PARTS)))
        seen = request.headers.get("last-event-id", "")
        after = number({"after": seen} if seen.isdecimal() else given, request, "after")
        caller, gateway = caller_of(request), gateway_of(request)
        poller = self._pollers.setdefault(caller.tenant, Poller(gateway, caller))
        viewer = Viewer(parts, caller.key, after)
        poller.enter(viewer)

        async def close() -> None:
            await poller.leave(viewer)
            if poller.idle and self._pollers.get(caller.tenant) is poller:
                del self._pollers[caller.tenant]

        return EventStream(_pieces(viewer), on_close=close)


async def _pieces(viewer: Viewer) -> AsyncIterator[bytes]:
    yield _RETRY
    while True:
        try:
            async with asyncio.timeout(_QUIET_S):
                piece = await viewer.pieces.get()
        except TimeoutError:
            piece = b": still here\n\n"
        if piece is None:
            return
        yield piece


def _parts(text: str) -> frozenset[str]:
    parts = frozenset(text.split(","))
    if unknown := parts - set(PARTS):
        what = min(unknown)
        raise BadArgument(
            f"live has no part {what[:80]!r}; it has {', '.join(PARTS)}", name="parts", got=what[:80],
            want=", ".join(PARTS),
        )  # fmt: skip
    return parts


def live_routes() -> list[BaseRoute]:
    """The route, with pollers of its own."""
    return [Route(f"{ROOT}/live", requires("read", Hub().live), methods=["GET"])]
