"""A transport that sends what one turn of the loop writes in one piece: the head of an answer with its body, the last
chunk of a stream with its end. Each piece costs a system call, and a packet."""

from __future__ import annotations

import asyncio
from typing import Any


class Corked:
    """Stands before an asyncio transport; what it does not know is asked of that."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send with what else is written in this turn of the loop."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Send what was written."""
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        """Close when everything is sent."""
        self.flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Say that nothing more comes."""
        self.flush()
        self._transport.write_eof()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
