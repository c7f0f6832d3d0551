"""HTTP as cheaply as Python can: bare sockets, so that the client's own cost is small beside what is measured."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

END = b"0\r\n\r\n"


class Refused(Exception):
    """The server answered with another status than 200."""


@dataclass(frozen=True)
class Target:
    """A server to speak to, and the model it serves."""

    name: str
    port: int
    model: str
    key: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What its requests for text have beside the usual fields."""

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """The bytes of a request."""
        content = b"" if body is None else json.dumps(body).encode()
        key = f"Authorization: Bearer {self.key}\r\n" if self.key else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{key}Content-Type: application/json\r\n"
        return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    def chat(self, text: str, tokens: int) -> bytes:
        """A chat as a stream of exactly so many tokens."""
        body = {
            "model": self.model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens,
            "temperature": 0, "stream": True, **self.extra,
        }  # fmt: skip
        return self.request("POST", "/v1/chat/completions", body)


class Connection:
    """One connection that is kept, blocking."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> bytes:
        """The whole answer, head and all."""
        self._socket.sendall(request)
        received = b""
        while not whole(received):
            piece = self._socket.recv(1 << 16)
            if not piece:
                raise Refused(f"the connection was closed after {received[:200]!r}")
            received += piece
        if not received.startswith(b"HTTP/1.1 200"):
            raise Refused(received[:500].decode(errors="replace"))
        return received


def whole(received: bytes) -> bool:
    """Whether an answer is complete."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    lowered = head.lower()
    if b"transfer-encoding: chunked" in lowered:
        return body.endswith(END)
    _, _, length = lowered.partition(b"content-length: ")
    return len(body) >= int(length.split(b"\r\n", 1)[0] or b"0")


@dataclass
class Told:
    """What one stream gave. Times in seconds since it was asked for."""

    first: float = 0.0
    """When the first text came."""
    end: float = 0.0
    texts: int = 0
    """Events with text."""


async def stream(port: int, request: bytes) -> Told:
    """One stream on a connection of its own. Raises Refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    told, began, rest = Told(), time.perf_counter(), b""
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise Refused((head + await reader.read(500)).decode(errors="replace"))
        async for data in _chunks(reader):
            *lines, rest = (rest + data).split(b"\n")
            for text in texts(lines):
                told.texts += 1
                if text and not told.first:
                    told.first = time.perf_counter() - began
        told.end = time.perf_counter() - began
    finally:
        writer.close()
    return told


async def _chunks(reader: asyncio.StreamReader) -> Any:
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]


def texts(lines: list[bytes]) -> Iterator[str]:
    """What the events among some lines say. Raises Refused for an error in them."""
    for line in lines:
        data = line.strip().removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or data == b"[DONE]":
            continue
        event = json.loads(data)
        if "error" in event:
            raise Refused(data.decode()[:500])
        for choice in event.get("choices", ()):
            delta = choice.get("delta", {})
            if delta.get("content") is not None and not (delta.get("role") and not delta["content"]):
                yield delta["content"]


async def rate(port: int, request: bytes, at_once: int, count: int) -> float:
    """Answers a second, with so many connections asking in turn."""
    left = iter(range(count))

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        try:
            for _ in left:
                writer.write(request)
                await _answer(reader)
        finally:
            writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(at_once)))
    return count / (time.perf_counter() - began)


async def _answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise Refused((head + await reader.read(500)).decode(errors="replace"))
    lowered = head.lower()
    if b"transfer-encoding: chunked" in lowered:
        async for _ in _chunks(reader):
            pass
    else:
        await reader.readexactly(int(lowered.partition(b"content-length: ")[2].split(b"\r\n", 1)[0]))
