"""`GET /openapi.json`: an OpenAPI 3.1 document of all routes, derived from the call table and the routes themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from llmos.syscalls.spec import CallSpec
from llmos.syscalls.types import Entry, Hit, Kind, Metric, ModelInfo, ObjectInfo, Reason, Record, Task

from ..core.errors import ROWS
from ..core.respond import encoded, json_response
from ..core.routing import Guarded, requires
from .bodies import BODIES, EMPTY, FORMS
from .queries import QUERIES, ROOT, words
from .scopes import NOT_OFFERED
from .schemas import Schema, answer_of, components, ref, schema_of

VERSION = "3.1.0"
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_JSON = "application/json"
_EVENTS = "text/event-stream"
_BINARY = "application/octet-stream"
_FORM = "multipart/form-data"
STATUSES = sorted({row.status for row in ROWS.values()} | {401, 404, 405, 408, 413, 415, 416, 431})
"""Every status that an error may have."""

_VALUES: Mapping[str, Any] = {
    **{f"{ROOT}/{kind.value}s": list[ObjectInfo] for kind in Kind},
    f"{ROOT}/stat/{{path:path}}": Entry,
    f"{ROOT}/list/{{path:path}}": list[Entry],
    f"{ROOT}/search": list[Hit],
    f"{ROOT}/journal": list[Record],
    f"{ROOT}/metrics": dict[str, Metric],
    f"{ROOT}/plan": ModelInfo,
    f"{ROOT}/why/{{about:path}}": list[Reason],
    f"{ROOT}/runs": list[dict[str, Any]],
    f"{ROOT}/runs/{{id}}": dict[str, Any],
    "/discover": list[Hit],
    "/register": Task,
    "/microtune": Task,
}
"""What the value in the answer of a route is."""


def routes(others: Sequence[BaseRoute]) -> list[BaseRoute]:
    """The route of the document, which describes the others and itself."""
    made: list[bytes] = []

    async def openapi(request: Request) -> ASGIApp:
        """This document."""
        words(request)
        if not made:
            made.append(encoded(document([*others, *mine])))
        return _Ready(made[0])

    mine: list[BaseRoute] = [Route("/openapi.json", requires("read", openapi), methods=["GET"])]
    return mine


class _Ready:
    """The document as it was encoded once."""

    def __init__(self, content: bytes) -> None:
        self._response = json_response(None)
        self._response.body = content
        self._response.headers["content-length"] = str(len(content))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._response(scope, receive, send)


def document(routes: Sequence[BaseRoute]) -> Schema:
    """The document: every route with its scope, its parameters, its body, its answers."""
    paths: dict[str, Schema] = {}
    schemas, named = components(BODIES)
    for route in routes:
        if isinstance(route, Route):
            at = paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})
            for method in sorted((route.methods or set()) - {"HEAD"}):
                at.setdefault(method.lower(), operation(route, method, named.get(route.path)))
    return {
        "openapi": VERSION,
        "info": {
            "title": "LLM OS",
            "version": "1",
            "description": "The gateway of LLM OS. Calls that are not offered here: "
            + "; ".join(f"{name}: {why}" for name, why in sorted(NOT_OFFERED.items())) + ".",
        },
        "security": [{"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {"Error": _content("An error.", ref("Error")), "PlainError": _content("An error.", _either())},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }  # fmt: skip


def _either() -> Schema:
    return {"anyOf": [ref("PlainError"), ref("Error")]}


def operation(route: Route, method: str, body: Schema | None) -> Schema:
    """One route with one method."""
    guarded = route.endpoint if isinstance(route.endpoint, Guarded) else None
    spec = _spec_of(guarded)
    summary, _, more = _doc(guarded, spec).partition("\n")
    made: Schema = {
        "operationId": _id(method, route.path),
        "summary": summary.strip(),
        "tags": [_tag(route.path)],
        "responses": _answers(route, method, guarded, spec),
    }
    if more.strip():
        made["description"] = " ".join(more.split())
    if guarded is None or guarded.scope is None:
        made["security"] = []
    else:
        made["x-llmos-scope"] = guarded.scope
    if parameters := [*_in_path(route.path), *_in_query(route.path, method)]:
        made["parameters"] = parameters
    if content := _body(route, method, spec, body):
        made["requestBody"] = {
            "required": _needs(spec) if spec is not None else route.path not in EMPTY,
            "content": content,
        }
    return made


def _needs(spec: CallSpec) -> bool:
    """Whether the call takes an argument that has to be said."""
    return any(field.required and field.kind is not Kind.SYSTEM for field in spec.fields)


def _spec_of(guarded: Guarded | None) -> CallSpec | None:
    """The call behind a derived route."""
    handler = guarded.handler if guarded is not None else None
    arguments = handler.args if isinstance(handler, partial) else ()
    return next((each for each in arguments if isinstance(each, CallSpec)), None)


def _doc(guarded: Guarded | None, spec: CallSpec | None) -> str:
    if spec is not None:
        return spec.doc
    handler: Any = guarded.handler if guarded is not None else None
    while isinstance(handler, partial):
        handler = handler.func
    return str(getattr(handler, "__doc__", None) or "")


def _id(method: str, path: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", _PARAMETER.sub(r"\1", path).lower()).strip("_")
    return f"{method.lower()}_{words or 'root'}"


def _tag(path: str) -> str:
    first, _, rest = path.lstrip("/").partition("/")
    names = {"v1": "OpenAI", "v2": "KServe", "health": "Health", "dashboard": "Dashboard", "": "Dashboard"}
    if first == "api":
        return "LLM OS" if rest.startswith("v1/") else "Ollama"
    return names.get(first, "LLM OS")


def _in_path(path: str) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(path)
    ]


def _in_query(path: str, method: str) -> list[Schema]:
    known = QUERIES.get(path, {}) if method == "GET" else {}
    return [{"name": name, "in": "query", **parameter} for name, parameter in known.items()]


def _body(route: Route, method: str, spec: CallSpec | None, body: Schema | None) -> Schema:
    if method not in ("POST", "PUT") and body is None:
        return {}
    if spec is not None:
        return {_JSON: {"schema": ref(spec.cls.__name__)}}
    kind = _FORM if route.path in FORMS and method == "POST" else _JSON
    if route.path.startswith((f"{ROOT}/files/", f"{ROOT}/store/uploads/{{upload}}/")):
        return {_BINARY: {"schema": {}}}
    return {kind: {"schema": body or {"type": "object"}}}


def _content(description: str, schema: Schema, kind: str = _JSON) -> Schema:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _answers(route: Route, method: str, guarded: Guarded | None, spec: CallSpec | None) -> Schema:
    plain = guarded is not None and guarded.form is not None
    errors = {
        str(status): {"$ref": f"#/components/responses/{'PlainError' if plain else 'Error'}"} for status in STATUSES
    }
    return {**_good(route, method, spec), **errors}


def _good(route: Route, method: str, spec: CallSpec | None) -> Schema:
    path = route.path
    if spec is not None:
        return {"200": _of_call(spec)}
    if path in _VALUES:
        status = "202" if method == "POST" else "200"
        return {status: _content("The answer.", answer_of(schema_of(_VALUES[path])))}
    special: Mapping[str, Callable[[], Schema]] = {
        f"{ROOT}/whoami": lambda: {"200": _content("The caller.", ref("Whoami"))},
        f"{ROOT}/keys": lambda: (
            {"201": _content("The key.", answer_of(ref("Key")))} if method == "POST"
            else {"200": _content("All keys.", answer_of({"type": "array", "items": ref("Key")}))}
        ),
        f"{ROOT}/keys/{{id}}": lambda: {"200": _content("The key.", answer_of(ref("Key")))},
        f"{ROOT}/live": lambda: {"200": _content("Events.", {"type": "string"}, _EVENTS)},
    }  # fmt: skip
    if path in special:
        return special[path]()
    if path.startswith(f"{ROOT}/files/"):
        return _of_file(method)
    return {"200": {"description": "The answer."}, "2XX": {"description": "Another good answer."},
            "3XX": {"description": "Elsewhere."}}  # fmt: skip


def _of_call(spec: CallSpec) -> Schema:
    if spec.streams:
        events = "Events `item` with what comes, `end` with the result, or `error`."
        return _content(events, {"type": "string"}, _EVENTS)
    made = _content(f"What {spec.name} answers.", answer_of(schema_of(spec.result)))
    made["content"][_EVENTS] = {"schema": {"type": "string"}}
    return made


def _of_file(method: str) -> Schema:
    if method == "GET":
        return {
            status: _content(text, {}, _BINARY) for status, text in (("200", "The file."), ("206", "A range of it."))
        }
    if method == "PUT":
        return {"201": _content("The file as it is now.", answer_of(schema_of(Entry)))}
    return {"200": _content("It is gone.", answer_of({"type": "object"}))}
