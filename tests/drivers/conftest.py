"""A kernel of a few lines: the other end of a host's socket pair, for tests with real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from framed import Framed

from llmos.syscalls.wire import TERMINAL, Message, MessageKind, pack, unpack

PATIENCE_S = 60.0


@dataclass
class FakeKernel:
    """Speaks to one host process. Everything it receives stays in `log`, in order."""

    name: str = "null0"
    environ: Mapping[str, str] = field(default_factory=dict)
    log: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._number = 0
        command = [sys.executable, "-P", "-m", "llmos.drivers.host", self.name, "--fd"]
        environ = {**os.environ, "LLMOS_PARENT_PID": str(os.getpid()), **self.environ}
        self.process = self.spawn(command, env=environ, stderr=subprocess.PIPE)

    def spawn(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process with the other end of a new socket pair, whose number becomes its last argument."""
        ours, theirs = socket.socketpair()
        self.link = Framed(ours)
        with theirs:
            fd = theirs.fileno()
            return subprocess.Popen([*command, str(fd)], pass_fds=[fd], stdout=subprocess.PIPE, **options)

    def raw(self) -> list[bytes]:
        """The next message as frames; fails when the host has ended or none comes."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.link.poll(100):
            if self.process.poll() is not None and not self.link.poll(0):
                out, err = self.output()
                raise EOFError(f"the host ended with {self.process.returncode}: {out}{err}")
            assert time.monotonic() < deadline, f"nothing came; so far {self.log[-5:]}"
        return self.link.receive()

    def next(self) -> Message:
        message = unpack(self.raw())
        self.log.append(message)
        return message

    def until(self, kind: MessageKind, *, number: int | None = None, name: str | None = None) -> Message:
        """The next message of a kind, about a call or with a name."""
        while True:
            message = self.next()
            if message.kind is kind and number in (None, message.request) and name in (None, message.name):
                return message

    def until_step(self, seconds: float) -> None:
        """Wait for the beat before a step that may take so long: what was sent before has been taken."""
        while self.until(MessageKind.BEAT).body["may_take_s"] != seconds:
            pass

    def send(self, name: str, body: Any = None) -> int:
        """Call without waiting; returns the call's number."""
        self._number += 1
        self.link.send(pack(MessageKind.CALL, self._number, name, body))
        return self._number

    def answer(self, number: int) -> Message:
        """The terminal answer of a call; those that passed by while waiting for another count."""
        for message in self.log:
            if message.kind in TERMINAL and message.request == number:
                return message
        while True:
            message = self.next()
            if message.kind in TERMINAL and message.request == number:
                return message

    def call(self, name: str, body: Any = None) -> Any:
        """Call and wait; the value of the answer, or the whole body of an error."""
        message = self.answer(self.send(name, body))
        return message.body if message.kind is MessageKind.ERROR else message.body["value"]

    def start(self, **config: Any) -> Message:
        """Bring the driver up; returns its `ready` event."""
        self.until(MessageKind.BEAT)
        manifest = {"driver": self.name, "threads": 1, "config": config}
        assert self.call("start", {"manifest": manifest}) == {}, self.log[-1]
        return self.until(MessageKind.EVENT, name="ready")

    def load(self, model: str = "m", manifest: Mapping[str, Any] | None = None) -> Any:
        located = {"path": f"/models/{model}", "version": "v1", "files": [], "manifest": dict(manifest or {})}
        return self.call("load", {"id": model, "model": located})

    def submit(self, text: str, request: str = "r", **work: Any) -> int:
        body = {"id": request, "model": "m", "input": {"type": "text", "text": text}, **work}
        return self.send("submit", {"work": body})

    def events(self, name: str) -> list[Message]:
        return [message for message in self.log if message.kind is MessageKind.EVENT and message.name == name]

    def wait(self) -> int:
        """The exit status of the host; what it still says goes to the log."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None or self.link.poll(0):
            assert time.monotonic() < deadline, "the host does not end"
            if self.link.poll(20):
                self.next()
        return self.process.returncode

    def output(self) -> tuple[str, str]:
        """What the ended host printed."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return out.decode(), err.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.communicate()
        self.link.close()


@pytest.fixture
def kernel() -> Iterator[FakeKernel]:
    """A null device's host, not started yet."""
    fake = FakeKernel()
    yield fake
    fake.close()


@pytest.fixture
def null(kernel: FakeKernel) -> FakeKernel:
    """A null device with a model `m`."""
    kernel.start()
    kernel.load()
    return kernel


@dataclass(frozen=True)
class Package:
    """A driver package that exists only for a test."""

    path: Path

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs to find it."""
        return {"PYTHONPATH": str(self.path)}


@pytest.fixture
def package(folder: Path) -> Callable[..., Package]:
    """`package(name, source, group)` installs a module that announces a driver `name`; several may share a folder."""
    path = folder / "site"

    def make(name: str, source: str, group: str = "llmos.devices", *, distribution: str = "") -> Package:
        distribution = distribution or f"driver-{name}"
        module = distribution.replace("-", "_")
        info = path / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (path / f"{module}.py").write_text(textwrap.dedent(source))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")
        return Package(path)

    return make


@pytest.fixture
def host_of() -> Iterator[Callable[..., FakeKernel]]:
    """`host_of(name, environ)`: the host of another driver."""
    made: list[FakeKernel] = []

    def make(name: str, environ: Mapping[str, str] | None = None) -> FakeKernel:
        made.append(FakeKernel(name, environ or {}))
        return made[-1]

    yield make
    for fake in made:
        fake.close()
