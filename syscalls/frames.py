"""Messages over a byte stream, without any I/O: what the kernel and a host say to each other through their socket pair.

Each message is `[length of the header][length of the body][header][body]`, the lengths as 32-bit integers in network
order. Header and body are the two frames of `wire`.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from .errors import BadCall, TooLarge
from .wire import HEADER_BYTES, LIMITS

_LENGTHS = struct.Struct("!II")
_SMALL = 1 << 16
"""A larger body goes out from where it lies; joining a smaller one to its header costs less than another buffer."""
_BUFFERS = 256
"""So many buffers go into one system call; POSIX guarantees 16, Linux takes 1024 (sendmsg(2), IOV_MAX)."""


class Outbox:
    """Messages on their way out: what a stream takes now is up to the stream, the rest waits here in order."""

    def __init__(self) -> None:
        self._buffers: deque[bytes | memoryview] = deque()
        self.size = 0
        """Bytes that wait."""

    def add(self, frames: Sequence[bytes]) -> None:
        """Append a message.

        Raises:
            ValueError: it has not two frames.
        """
        header, body = frames
        start = _LENGTHS.pack(len(header), len(body)) + header
        if len(body) <= _SMALL:
            self._buffers.append(start + body)
        else:
            self._buffers += (start, body)
        self.size += len(start) + len(body)

    def __bool__(self) -> bool:
        return bool(self._buffers)

    def buffers(self) -> list[bytes | memoryview]:
        """What to offer to the stream next; then say with `sent` how much of it was taken."""
        return list(islice(self._buffers, _BUFFERS))

    def sent(self, count: int) -> None:
        """Forget so many bytes from the front."""
        self.size -= count
        buffers = self._buffers
        while count:
            size = len(buffers[0])
            if size > count:
                buffers[0] = memoryview(buffers[0])[count:]
                return
            buffers.popleft()
            count -= size


class Decoder:
    """Messages out of a stream that arrives in pieces of any size."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._needed = _LENGTHS.size
        """Bytes that must be there before it is worth looking again."""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The messages, header and body, that are whole with these bytes. Must be read to its end.

        Raises:
            BadCall: a header is longer than the protocol allows.
            TooLarge: a body is; nothing of it is kept, and the stream is of no more use.
        """
        if self._kept:
            self._kept += data
            if len(self._kept) < self._needed:
                return
            data, self._kept = bytes(self._kept), bytearray()
        place, end = 0, len(data)
        self._needed = _LENGTHS.size
        while end - place >= _LENGTHS.size:
            header, body = _LENGTHS.unpack_from(data, place)
            _check(header, body)
            size = _LENGTHS.size + header + body
            if end - place < size:
                self._needed = size
                break
            middle = place + _LENGTHS.size + header
            yield data[place + _LENGTHS.size : middle], data[middle : place + size]
            place += size
        self._kept += data[place:] if place else data


def _check(header: int, body: int) -> None:
    if header > HEADER_BYTES:
        raise BadCall(f"a header of {header} bytes is announced, at most {HEADER_BYTES} are allowed")
    if body > LIMITS.message_bytes:
        raise TooLarge(
            f"a message of {body} bytes is announced, the limit is {LIMITS.message_bytes}",
            limit=LIMITS.message_bytes,
            got=body,
        )
