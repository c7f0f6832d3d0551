"""A client in a process of its own, so that a test can be two programs, another user, or a program that is killed.

The process (`puppet_main`) holds a `RawClient` and does what it is told over its standard input and output.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack

from llmos.syscalls.errors import from_wire
from system.kernel_process import readable

MAIN = Path(__file__).with_name("puppet_main.py")
NOBODY = 65534


class Puppet:
    """The other end. Methods of `RawClient` are called by name; errors of the kernel are raised here."""

    def __init__(self, socket: Path, uid: int | None = None) -> None:
        user = [] if uid is None else [str(uid)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(MAIN), str(socket), *user],
            env={**os.environ, "PYTHONPATH": str(MAIN.parent.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self.process.pid
        self._answers = msgpack.Unpacker()

    def do(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a method there and wait for its result."""
        self.tell(method, *arguments, **keywords)
        return self.hear()

    def tell(self, method: str, *arguments: Any, **keywords: Any) -> None:
        """Call a method there."""
        assert self.process.stdin is not None
        self.process.stdin.write(msgpack.packb([method, arguments, keywords]))
        self.process.stdin.flush()

    def hear(self) -> Any:
        """The result of the next method that was called."""
        assert self.process.stdout is not None
        while True:
            for kind, value in self._answers:
                if kind == "error":
                    raise from_wire(value)
                return value
            assert readable(self.process.stdout.fileno()), "the puppet does not answer"
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            assert data, f"the puppet ended with {self.process.wait()}"
            self._answers.feed(data)

    def hello(self, **body: Any) -> SimpleNamespace:
        """Open a session there."""
        return SimpleNamespace(**self.do("open_session", **body))

    def call(self, name: str, **body: Any) -> Any:
        return self.do("call", name, **body)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def puppet(socket: Path, uid: int | None = None) -> Iterator[Puppet]:
    """A puppet that ends with the block."""
    one = Puppet(socket, uid)
    try:
        yield one
    finally:
        one.close()
