"""What surrounds every request: its id, its limits, its caller, the form of its errors, its line in the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from llmos.syscalls.errors import NotFound, Unavailable

from .auth import anonymous, caller_from, is_foreign, is_local, key_text, no_key, wrong_key
from .body import IGNORED, Inbox, ignored_header
from .caller import Caller
from .errors import FAILURES, Failure, answer_of, head_too_large
from .ids import request_id_from, trace_from
from .respond import error_response
from .routing import Table
from .scopes import is_page, is_public
from .settings import address_of
from .tracing import Ended
from .wiring import Gateway

REQUEST_ID = "x-request-id"
KERNEL_REQUEST = "x-llmos-request"
LIVE = "/health/live"

_METHODS = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_log = logging.getLogger("llmos.gateway")


class Outbox:
    """The `send` of one request: adds the headers that every answer has, and remembers how it went."""

    def __init__(self, send: Send, inbox: Inbox, state: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._inbox = inbox
        self._state = state
        self._headers = headers
        self.status = 0
        """Of the answer; 0 while none has begun."""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), *self._headers]
            if ignored := ignored_header(self._state):
                headers.append((IGNORED.lower().encode(), ignored.encode()))
            if request := self._state.get("kernel_request"):
                headers.append((KERNEL_REQUEST.encode(), request.encode()))
            message = {**message, "headers": headers}
        elif not message.get("more_body", False):
            self._inbox.answered = True
        await self._send(message)


class Guard:
    """The outermost ASGI app."""

    def __init__(self, gateway: Gateway, routes: Table) -> None:
        self._gateway = gateway
        self._routes = routes
        self._address = address_of(gateway.settings.http)
        self._anonymous = anonymous(gateway.settings) if gateway.settings.anonymous == "local" else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        gateway, settings = self._gateway, self._gateway.settings
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        inbox = Inbox(receive, settings.body_bytes, settings.body_s)
        state: dict[str, Any] = scope.setdefault("state", {})
        trace = trace_from(headers.get("traceparent"))
        state.update(
            gateway=gateway, inbox=inbox, route="", trace=trace, request_id=request_id_from(headers.get(REQUEST_ID))
        )
        outbox = Outbox(send, inbox, state, list(self._headers(state, headers)))
        gateway.state.begin()
        try:
            await self._answer(scope, headers, inbox, outbox)
        except FAILURES as error:
            await self._fail(error, scope, inbox, outbox)
        except asyncio.CancelledError:
            if not inbox.gone:
                raise
            gateway.instruments.disconnects.inc()
            outbox.status = outbox.status or 499
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        finally:
            inbox.close()
            gateway.state.end()
            self._account(scope, state, outbox.status or 500, time.perf_counter() - began)

    def _headers(self, state: dict[str, Any], given: dict[str, str]) -> Iterable[tuple[bytes, bytes]]:
        yield REQUEST_ID.encode(), state["request_id"].encode()
        if state["trace"] is not None:
            yield b"traceparent", state["trace"].header().encode()
        origin = given.get("origin", "")
        if origin and ("*" in self._gateway.settings.origins or origin in self._gateway.settings.origins):
            yield b"access-control-allow-origin", origin.encode("latin-1")
            yield b"access-control-expose-headers", f"{REQUEST_ID}, {KERNEL_REQUEST}, retry-after".encode()
            yield b"vary", b"origin"

    async def _answer(self, scope: Scope, headers: dict[str, str], inbox: Inbox, outbox: Outbox) -> None:
        self._check_head(scope)
        if self._gateway.state.draining and scope["path"] != LIVE:
            raise stopping()
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers and self._allowed(headers):
            await _preflight(headers, outbox)
            return
        caller = self._caller(scope, headers)
        if caller is None:
            await self._routes(scope, inbox, outbox)
            return
        scope["state"]["caller"] = caller
        with self._gateway.limits.admit(caller, time.monotonic()):
            self._gateway.sessions.entered(caller)
            try:
                await self._routes(scope, inbox, outbox)
            finally:
                self._gateway.sessions.left(caller)

    def _check_head(self, scope: Scope) -> None:
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._gateway.settings.header_bytes:
            raise head_too_large(self._gateway.settings.header_bytes)

    def _allowed(self, headers: dict[str, str]) -> bool:
        origins = self._gateway.settings.origins
        return "*" in origins or headers.get("origin", "") in origins

    def _caller(self, scope: Scope, headers: dict[str, str]) -> Caller | None:
        """Who asks; None for paths that need nobody. Raises HttpError 401."""
        if is_page(scope["path"]):
            return None
        text = key_text(scope["method"], headers)
        if text is not None:
            now = time.time()
            found = self._gateway.keys.find(text, now)
            if found is not None:
                self._gateway.keys.touch(found.id, now)
                return caller_from(found)
            if not is_public(scope["path"]):
                raise wrong_key()
        if is_public(scope["path"]):
            return None
        if self._anonymous is not None and (self._allowed(headers) or not is_foreign(headers)):
            peer = scope.get("client")
            names = self._gateway.settings.hosts
            if is_local(peer[0] if peer else None, headers.get("host", ""), self._address, names):
                return self._anonymous
        raise no_key()

    async def _fail(self, error: Failure, scope: Scope, inbox: Inbox, outbox: Outbox) -> None:
        error = told_to(scope["state"].get("caller"), error)
        answer = answer_of(error)
        if answer.status in (401, 403, 413, 429, 431, 503):
            self._gateway.instruments.rejected.labels(str(answer.body["code"])).inc()
        scope["state"]["error"] = answer.message
        if outbox.status:
            return  # its head is out: the server closes the connection, which tells the client
        if answer.status == 413:
            await inbox.discard()
        form = scope["state"].get("error_form") or self._routes.error_form(scope) or error_response
        response = form(error, Request(scope))
        if not inbox.whole and scope["method"] in ("POST", "PUT", "PATCH"):  # nobody reads the rest of its body
            response.headers["connection"] = "close"
        await response(scope, inbox, outbox)

    def _account(self, scope: Scope, state: dict[str, Any], status: int, seconds: float) -> None:
        instruments = self._gateway.instruments
        route = state["route"]
        instruments.request(route, scope["method"], status, seconds)
        if (kernel := state.get("kernel_s")) is not None:
            instruments.overhead(route, max(0.0, seconds - kernel - state.get("load_s", 0.0)))
        if (tracer := self._gateway.tracer) is not None:
            model = state.get("model", "")
            tracer.ended(Ended(state["trace"], scope["method"], route, status, seconds, state.get("inference"), model))
        wanted = self._gateway.settings.log
        if wanted == "none" or (wanted == "errors" and status < 400):
            return
        caller = state.get("caller")
        line = {
            "request": state["request_id"],
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "ms": round(seconds * 1000, 3),
            "key": caller.key if caller is not None else "",
            "kernel": state.get("kernel_request", ""),
            "trace": state["trace"].trace if state["trace"] is not None else "",
            "error": state.get("error", "")[:300],
        }
        level = logging.WARNING if status >= 500 else logging.INFO
        _log.log(level, "%s", msgspec.json.encode({name: value for name, value in line.items() if value}).decode())


def told_to(caller: Caller | None, error: Failure) -> Failure:
    """The error as the caller may hear it: to a wrong name the kernel names what is near, which may be for others."""
    if isinstance(error, NotFound) and caller is not None and caller.models and not caller.admin:
        return NotFound("nothing of that name exists, or it is not for this key")
    return error


def stopping() -> Unavailable:
    """503 for what comes while the gateway stops."""
    return Unavailable("the gateway is stopping and takes no new requests; try again in a moment", retry_after_ms=2000)


async def _preflight(headers: dict[str, str], send: Send) -> None:
    """The browser's question before a call from another site (Fetch standard, CORS-preflight)."""
    wanted = headers.get("access-control-request-headers", "authorization, content-type").encode("latin-1")
    answer = [
        (b"access-control-allow-methods", _METHODS.encode()), (b"access-control-allow-headers", wanted),
        (b"access-control-max-age", b"600"), (b"content-length", b"0"),
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": 204, "headers": answer})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
