"""One end of the socket pair between the kernel and a host, held by a test."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Sequence

from llmos.syscalls.frames import Decoder, Outbox


class Framed:
    """Messages over a socket. Sending waits for the other end, receiving does not unless it is told to."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._decoder = Decoder()
        self._messages: deque[list[bytes]] = deque()
        self.ended = False

    def send(self, frames: Sequence[bytes]) -> None:
        outbox = Outbox()
        outbox.add(frames)
        for buffer in outbox.buffers():
            self.socket.sendall(buffer)

    def poll(self, milliseconds: int) -> bool:
        """Whether a message is there, or comes within the time."""
        while not self._messages and not self.ended:
            readable, _, _ = select.select([self.socket], [], [], milliseconds / 1000)
            if not readable:
                break
            self._read()
        return bool(self._messages)

    def receive(self) -> list[bytes]:
        """The next message that is there."""
        return self._messages.popleft()

    def _read(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self.ended = not data
        self._messages.extend(list(message) for message in self._decoder.feed(data))

    def close(self) -> None:
        self.socket.close()
