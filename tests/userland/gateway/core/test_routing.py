"""Which route answers, and what is said when none does."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from llmos.syscalls.errors import Denied
from llmos.userland.gateway.core.caller import Caller
from llmos.userland.gateway.core.errors import HttpError
from llmos.userland.gateway.core.routing import Table, public, requires, scope_of


async def show(request: Request) -> Response:
    return PlainTextResponse(f"{request.url.path} {dict(request.path_params)} {request.scope['state']['route']}")


TABLE = Table(
    [
        Route("/fixed", requires("read", show), methods=["GET"]),
        Route("/open", public(show), methods=["GET"]),
        Route("/files/{path:path}", requires("files", show), methods=["GET"]),
        Route("/files/{path:path}", requires("files", show), methods=["PUT"]),
    ]
)


async def asked(method: str, path: str, *scopes: str) -> str:
    caller = Caller("k", "u", "t", frozenset(scopes))
    scope: dict[str, Any] = {
        "type": "http", "method": method, "path": path, "headers": [], "query_string": b"", "server": ("x", 80),
        "state": {"caller": caller},
    }  # fmt: skip
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody reads the body")

    await TABLE(scope, receive, send)
    return str(sent[1]["body"].decode())


async def test_paths_with_and_without_parameters() -> None:
    assert await asked("GET", "/fixed", "read") == "/fixed {} /fixed"
    assert await asked("HEAD", "/fixed", "read") == "/fixed {} /fixed"
    assert await asked("PUT", "/files/a/b", "files") == "/files/a/b {'path': 'a/b'} /files/{path:path}"
    assert await asked("GET", "/open") == "/open {} /open"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/none", 404), ("GET", "/fixed/", 404)])
async def test_nothing_there(method: str, path: str, status: int) -> None:
    with pytest.raises(HttpError) as raised:
        await asked(method, path, "admin")
    assert raised.value.status == status


async def test_a_method_that_is_not_offered_names_those_that_are() -> None:
    with pytest.raises(HttpError) as raised:
        await asked("DELETE", "/files/x", "files")
    assert raised.value.status == 405 and raised.value.headers["Allow"] == "GET, HEAD, PUT"
    with pytest.raises(HttpError) as raised:
        await asked("POST", "/fixed", "read")
    assert raised.value.status == 405


async def test_the_scope_is_checked_before_the_handler() -> None:
    with pytest.raises(Denied):
        await asked("GET", "/fixed", "infer")


def test_scopes_of_routes() -> None:
    assert [scope_of(route) for route in TABLE.routes] == ["read", None, "files", "files"]
    assert scope_of(Route("/x", show)) is None
