"""The process of a `Puppet`: `puppet_main.py SOCKET [UID]`."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from pathlib import Path
from typing import Any

import msgpack

from llmos.syscalls.errors import LlmosError
from system import zmtp
from system.raw_client import RawClient


class Strings(RawClient):
    """What the test may pull: the client's own methods and these."""

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self._socket_path = socket
        self.crowd: list[RawClient] = []

    def open_session(self, **body: Any) -> dict[str, Any]:
        self.hello("puppet", **body)
        return {"session": self.session, "token": self.token, "system": self.system, "handle": self.handle,
                "grants": self.grants, "pid": os.getpid()}  # fmt: skip

    def speak_as(self, identity: bytes, name: str, **body: Any) -> Any:
        """Make a call over a connection of its own, written by hand, with a routing id of its choice."""
        self.raw = zmtp.greeted(self._socket_path, identity)
        return zmtp.call(self.raw, name, **body)

    def hang_up(self) -> None:
        """Close that connection, and wait until the other end has."""
        self.raw.shutdown(socket.SHUT_WR)
        self.raw.recv(1)
        self.raw.close()

    def open_host_file(self, path: str) -> str:
        """Open a file of the machine, without the kernel: the name of the error, or an empty text."""
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return ""

    def connect_to(self, path: str) -> str:
        """Connect to a socket of the machine: the name of the error, or an empty text."""
        try:
            zmtp.connected(Path(path)).close()
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return ""

    def outcome(self, number: int) -> dict[str, Any]:
        """The answer to a request that was sent before."""
        answer = self.wait(number)
        return {"kind": answer.kind, "body": answer.body, "chunks": answer.chunks}

    def gather(self, count: int, model: str, prompt: str) -> int:
        """Open many sessions, each with a stream that has begun."""
        for _ in range(count):
            client = RawClient(self._socket_path).hello("crowd")
            number = client.start(client.load(model), prompt, "infer_stream", call_credit=2)
            client.first_chunk(number)
            self.crowd.append(client)
        return len(self.crowd)

    def leave(self) -> None:
        """Close the connections of all of them, without a word."""
        for client in self.crowd:
            client.close()
        self.crowd.clear()


def serve(strings: Strings) -> None:
    orders = msgpack.Unpacker()
    while data := os.read(0, 1 << 16):
        orders.feed(data)
        for method, arguments, keywords in orders:
            try:
                answer = ["value", getattr(strings, method)(*arguments, **keywords)]
            except LlmosError as error:
                answer = ["error", error.to_wire()]
            with contextlib.suppress(TypeError):
                os.write(1, msgpack.packb(answer))
                continue
            os.write(1, msgpack.packb(["value", None]))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.setgroups([])
        os.setgid(int(sys.argv[2]))
        os.setuid(int(sys.argv[2]))
    with Strings(Path(sys.argv[1])) as the_strings:
        serve(the_strings)
        the_strings.leave()
