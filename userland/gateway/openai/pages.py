"""Lists as the API pages them: newest first, `limit` at a time, `after` an id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from llmos.syscalls.errors import BadArgument

MOST = 10_000


def page(request: Request, items: Sequence[dict[str, Any]], default: int = 100) -> dict[str, Any]:
    """The part of the list that the query asks for. Raises BadArgument."""
    query = request.query_params
    text = query.get("limit", str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST:
        raise BadArgument(f"limit is {text[:40]!r}; expected 1 to {MOST}", name="limit", got=text[:40])
    found = list(reversed(items)) if query.get("order") == "asc" else list(items)
    if after := query.get("after"):
        at = next((at for at, item in enumerate(found) if item["id"] == after), len(found) - 1)
        found = found[at + 1 :]
    shown = found[: int(text)]
    return {
        "object": "list",
        "data": shown,
        "has_more": len(found) > len(shown),
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }
