"""The parameters that may stand in the query of each route: one table for the checks and for the document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request

from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument

ROOT = "/api/v1"
_MOST = 1 << 60


def _text(doc: str, **more: Any) -> dict[str, Any]:
    return {"description": doc, "schema": {"type": "string", **more}}


def _whole(doc: str, least: int, most: int, default: int | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    return {"description": doc, "schema": schema if default is None else {**schema, "default": default}}


_PREFIX = {"prefix": _text("only names and ids that start so")}
_QUERY = _text("words", default="")

QUERIES: Mapping[str, Mapping[str, dict[str, Any]]] = {
    **{f"{ROOT}/{name}": _PREFIX for name in ("models", "devices", "drivers", "tasks", "sessions")},
    f"{ROOT}/list/{{path:path}}": {"after": _text("the last path already seen")},
    f"{ROOT}/search": {
        "path": _text("where to search", default="/models"),
        "query": _QUERY,
        "limit": _whole("how many hits at most", 1, 1000, 8),
        "filters": {
            "description": "conditions on fields",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
    },
    f"{ROOT}/journal": {
        "after": _whole("the last number already seen; -1 for the newest records", -1, _MOST, -1),
        "about": _text("only records about this id or name"),
        "level": _text("the lowest level", enum=["debug", "info", "warning", "error"], default="info"),
        "limit": _whole("how many records at most", 1, 10_000, 100),
    },
    f"{ROOT}/metrics": {"prefix": _text("only names that start so")},
    f"{ROOT}/plan": {
        "path": {**_text("a stored model"), "required": True},
        "device": _text("name or id of a device; without it policy places the model"),
        "dtype": _text("the number format", enum=["auto", "float32", "bfloat16", "float16"]),
        "max_context": _whole("the longest context, in tokens", 1, 1 << 40),
    },
    f"{ROOT}/live": {
        "parts": _text("overview, journal and events, or some of them, with commas", default="overview,journal,events"),
        "after": _whole("the last number of the journal already seen; -1 for the newest records", -1, _MOST, -1),
    },
    "/discover": {"query": _QUERY, "task": _text("only models for this task"),
                  "limit": _whole("how many hits at most", 1, 1000, 8)},
}  # fmt: skip


def words(request: Request) -> dict[str, str]:
    """The parameters of the query.

    Raises:
        BadArgument: one that the route does not take, that is there twice, or that is missing.
    """
    known = QUERIES.get(request.scope["state"]["route"], {})
    given = request.query_params
    for name in given:
        if name not in known:
            raise BadArgument(
                f"there is no parameter {name[:80]!r} here; there are {', '.join(known) or 'none'}", name=name[:80],
                want=", ".join(known),
            )  # fmt: skip
        if len(given.getlist(name)) > 1:
            raise BadArgument(f"the parameter {name!r} is given more than once", name=name)
    for name, parameter in known.items():
        if parameter.get("required") and not given.get(name):
            raise BadArgument(f"the parameter {name!r} is missing", name=name, want=parameter["description"])
        choices = parameter.get("schema", {}).get("enum")
        if choices and name in given and given[name] not in choices:
            raise BadArgument(
                f"{name} is {given[name][:80]!r}; {suggest(given[name], choices)}", name=name, got=given[name][:80],
                want=", ".join(choices),
            )  # fmt: skip
    return dict(given)


def number(given: Mapping[str, str], request: Request, name: str) -> int:
    """A whole number of the query, within its limits. Raises BadArgument."""
    schema = QUERIES[request.scope["state"]["route"]][name]["schema"]
    text = given.get(name, str(schema.get("default", "")))
    digits = text.removeprefix("-")
    least, most = schema["minimum"], schema["maximum"]
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and least <= int(text) <= most):
        want = f"a whole number from {least} to {most}"
        raise BadArgument(f"{name} is {text[:80]!r}; expected {want}", name=name, got=text[:80], want=want)
    return int(text)


def json_word(given: Mapping[str, str], name: str) -> dict[str, Any]:
    """A JSON object of the query; empty when it is not there. Raises BadArgument."""
    try:
        return msgspec.json.decode(given.get(name) or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        raise BadArgument(f"{name} is no JSON object", name=name, got=given[name][:80], want="{...}") from None
