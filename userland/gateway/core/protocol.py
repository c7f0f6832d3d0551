"""One HTTP connection: uvicorn's protocol on httptools, with the limits that it lacks.

A head that does not come or does not end, too many connections, and a reader that takes nothing are ended here, by
timers of the connection itself, so that nothing is added to the path of a token.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle, Transport
from typing import Any, cast

from prometheus_client import Counter, Gauge
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from llmos.syscalls.errors import NoResources

from .corked import Corked
from .errors import Failure, HttpError, answer_of, head_too_large
from .respond import encoded
from .settings import Settings
from .wiring import Instruments

_PHRASES = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}

_LINGER_S = 1.0
"""How long a connection that is refused stays open for its client to read why."""


class Connection(HttpToolsProtocol):
    """See the module.

    Args:
        settings: the limits.
        instruments: counts connections and what is turned away.
    """

    def __init__(
        self, settings: Settings, instruments: Instruments, config: Config, state: ServerState, *, loop: Any = None
    ) -> None:
        super().__init__(config, state, {}, loop)
        self._settings = settings
        self._open: Gauge = instruments.connections
        self._rejected: Counter = instruments.rejected
        self._head_bytes = 0
        self._in_head = True
        self._timer: TimerHandle | None = None
        self._stalled: TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(Transport, Corked(cast(Transport, transport), self.loop)))
        self._open.inc()
        most = self._settings.connections
        if len(self.connections) > most:
            text = f"{most} connections are open, which is the limit"
            self._refuse(NoResources(text, what="connections", limit=most))
            return
        self._expect_head()

    def connection_lost(self, error: Exception | None) -> None:
        self._open.dec()
        self._drop_timers()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._in_head and self.parser is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.header_bytes:
                self._refuse(head_too_large(self._settings.header_bytes))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self._settings.stalled_reader_s, self._give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _expect_head(self) -> None:
        self._in_head = True
        if self._timer is None:
            self._timer = self.loop.call_later(self._settings.header_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self._head_bytes or self.cycle is None:
            seconds = self._settings.header_s
            text = f"the head of the request did not arrive within {seconds:g} s"
            self._refuse(HttpError(408, "timeout_error", "header_timeout", text))

    def _give_up(self) -> None:
        """The reader takes nothing: the end of the connection cancels its request."""
        self._stalled = None
        self._rejected.labels("stalled_reader").inc()
        self.transport.abort()

    def _refuse(self, error: Failure) -> None:
        """Answer without a request and close, once the client has read it: the system tells a client that still sends
        to a closed connection to forget what it received."""
        self._drop_timers()
        self._refused = True
        answer = answer_of(error)
        self._rejected.labels(str(answer.body["code"])).inc()
        body = encoded({"error": answer.body})
        headers = {**answer.headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"HTTP/1.1 {answer.status} {_PHRASES[answer.status]}", *(f"{n}: {v}" for n, v in headers.items())]
        self.transport.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._timer = self.loop.call_later(_LINGER_S, self.transport.close)
        else:
            self.transport.close()

    def _drop_timers(self) -> None:
        for timer in (self._timer, self._stalled):
            if timer is not None:
                timer.cancel()
        self._timer = self._stalled = None
