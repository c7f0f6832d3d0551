"""ZMTP by hand over a Unix socket, to speak it badly (rfc.zeromq.org/spec/23: ZMTP 3.0, NULL mechanism)."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmos.syscalls.errors import from_wire
from llmos.syscalls.wire import MessageKind, pack, unpack

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)


def ready(identity: bytes = b"") -> bytes:
    """The command that ends the handshake; `identity` is the routing id that the peer asks for."""
    metadata = b"\x0bSocket-Type" + _text(b"DEALER") + b"\x08Identity" + _text(identity)
    body = b"\x05READY" + metadata
    return b"\x04" + bytes([len(body)]) + body


def _text(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def frame(body: bytes, more: bool = False) -> bytes:
    """One frame of a message as it goes over the wire."""
    if len(body) < 256:
        return bytes([more, len(body)]) + body
    return bytes([more | 2]) + len(body).to_bytes(8, "big") + body


def message(frames: Sequence[bytes]) -> bytes:
    return b"".join(frame(body, more=place < len(frames) - 1) for place, body in enumerate(frames))


def connected(path: Path) -> socket.socket:
    """A connection that has said nothing yet."""
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(60)
    raw.connect(str(path))
    return raw


def greeted(path: Path, identity: bytes = b"") -> socket.socket:
    """A connection after the handshake: messages may be sent."""
    raw = connected(path)
    raw.sendall(GREETING)
    read_exactly(raw, len(GREETING))
    raw.sendall(ready(identity))
    flags, size = read_exactly(raw, 2)
    assert flags == 4 and read_exactly(raw, size).startswith(b"\x05READY")
    return raw


def read_exactly(raw: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = raw.recv(count - len(data))
        assert part, "the other end has hung up"
        data += part
    return data


def read_message(raw: socket.socket) -> list[bytes]:
    """The next message; commands are passed over."""
    frames = []
    while True:
        flags = read_exactly(raw, 1)[0]
        size = int.from_bytes(read_exactly(raw, 8 if flags & 2 else 1), "big")
        body = read_exactly(raw, size)
        if not flags & 4:
            frames.append(body)
            if not flags & 1:
                return frames


def call(raw: socket.socket, name: str, **body: Any) -> Any:
    """Make a call on a connection held by hand and wait for its value. Raises its error."""
    raw.sendall(message(pack(MessageKind.CALL, 1, name, body)))
    answer = unpack(read_message(raw))
    if answer.kind is MessageKind.ERROR:
        raise from_wire(answer.body)
    return answer.body["value"]
