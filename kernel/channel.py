"""The kernel's end of a host's socket pair: never waits, loses nothing, and says when the other end is gone.

The pair itself is the host's identity: only its process was given the other end.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence

from llmos.syscalls.errors import LlmosError
from llmos.syscalls.frames import Decoder, Outbox

from .children import Watcher

OUTBOX_BYTES = 256 << 20
"""A host that leaves so much unread is stuck, whatever its beats say."""
_READ_BYTES = 1 << 16
_READS = 4
"""So often it is read in a row: one host's flood must not hold up the loop."""
_LAST_READS = 64
"""More than fits into a socket; a process that inherited the other end could write for ever."""


class Channel:
    """One socket pair.

    Args:
        on_message: called from the loop with header and body of each message.
        on_fault: called with the reason when the host sends what is no message or does not read.
        on_end: called when the host has closed its end, or has ended.
    """

    def __init__(
        self,
        watcher: Watcher,
        on_message: Callable[[Sequence[bytes]], None],
        on_fault: Callable[[str], None],
        on_end: Callable[[], None],
    ) -> None:
        self._socket, self.theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._watcher = watcher
        self._on_message = on_message
        self._on_fault = on_fault
        self._on_end = on_end
        self._decoder = Decoder()
        self._outbox = Outbox()
        self._open = True
        watcher.watch(self._socket.fileno(), self._happened)

    def send(self, frames: Sequence[bytes]) -> None:
        """Send a message, now or when there is room for it. A host that is gone gets nothing."""
        if not self._open:
            return
        waiting = bool(self._outbox)
        self._outbox.add(frames)
        if not waiting:
            self._flush()
            if self._outbox:
                self._watcher.watch_room(self._socket.fileno(), True)
        elif self._outbox.size > OUTBOX_BYTES:
            self._outbox = Outbox()
            self._fault(f"it does not read: {OUTBOX_BYTES >> 20} MiB wait for it")

    def drain(self) -> None:
        """Take in the last words of a host that has ended."""
        for _ in range(_LAST_READS):
            if not self._open or not self._read():
                return

    def close(self) -> None:
        """Give both ends back."""
        self._stop()
        self._socket.close()
        self.theirs.close()

    def _happened(self) -> None:
        if self._outbox:
            self._flush()
            if not self._outbox:
                self._watcher.watch_room(self._socket.fileno(), False)
        for _ in range(_READS):
            if not self._open or not self._read():
                return

    def _flush(self) -> None:
        try:
            self._outbox.sent(self._socket.sendmsg(self._outbox.buffers()))
        except BlockingIOError:
            pass
        except OSError:  # reading tells what has become of the other end
            self._outbox = Outbox()

    def _read(self) -> bool:
        """Take in what has come; False when more is not there now."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._stop()
            self._on_end()
            return False
        for message in self._messages(data):
            self._on_message(message)
        return len(data) == _READ_BYTES

    def _messages(self, data: bytes) -> Iterator[Sequence[bytes]]:
        try:
            yield from self._decoder.feed(data)
        except LlmosError as error:
            self._fault(f"it sent something that is no message of a driver: {error}")

    def _fault(self, why: str) -> None:
        self._stop()
        self._on_fault(why)

    def _stop(self) -> None:
        if self._open:
            self._open = False
            self._watcher.unwatch(self._socket.fileno())
