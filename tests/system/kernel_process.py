"""A real kernel process for tests: start it, signal it, stop it, and see that it left nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmos.syscalls.errors import Denied
from system.raw_client import PATIENCE_S, RawClient

COMMAND = (sys.executable, "-P", "-m", "llmos.kernel")
DRIVERS = "null0,models"
ALL = "null0,models,files"
STAYS = {"kernel.lock"}
"""What a kernel that was stopped leaves in its runtime folder."""


class DidNotStart(Exception):
    """The kernel ended before it accepted calls."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"the kernel ended with {status}:\n{said}")
        self.status, self.said = status, said


class KernelProcess:
    """One daemon with its own home and runtime folders below `folder`.

    Args:
        config: the text of its configuration file.
        drivers: value of `--drivers`.
        options, environ, descriptors: what it gets beside.
        uid: as whom `command` runs it, when that is not this process's user.
    """

    def __init__(
        self,
        folder: Path,
        config: str = "",
        drivers: str = DRIVERS,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
        descriptors: Sequence[int] = (),
        uid: int | None = None,
    ) -> None:
        self.home, self.runtime = folder / "home", folder / "run"
        self.models = self.home / "models"
        self.socket = self.runtime / "kernel.sock"
        self.buffers = buffer_folder(self.runtime, os.getuid() if uid is None else uid)
        self.home.mkdir(exist_ok=True)
        if config:
            (self.home / "config.toml").write_text(config)
        self.log = folder / "kernel.log"
        ready, announce = os.pipe()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--runtime", str(self.runtime), "--home", str(self.home), "--drivers", drivers,
                 "--ready-fd", str(announce), *options],
                env={**os.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(announce, *descriptors),
            )  # fmt: skip
        self.pid = self.process.pid
        self.pidfd = os.pidfd_open(self.pid)
        os.close(announce)
        try:
            self.announcement = _read_line(ready)
        finally:
            os.close(ready)
        if not self.announcement:
            self.process.wait()
            os.close(self.pidfd)
            raise DidNotStart(self.process.returncode, self.said())

    def said(self) -> str:
        """What it wrote on stderr."""
        return self.log.read_text(errors="replace")[-4000:]

    def alive(self) -> None:
        """Raises when the kernel has ended."""
        if self.process.poll() is not None:
            raise AssertionError(f"the kernel ended with {self.process.returncode}:\n{self.said()}")

    @contextlib.contextmanager
    def connection(self, identity: bytes | None = None) -> Iterator[RawClient]:
        """A connection without a session."""
        with RawClient(self.socket, self.alive, identity) as client:
            yield client

    @contextlib.contextmanager
    def client(self, program: str = "test", **hello: Any) -> Iterator[RawClient]:
        """A session of this process. It is closed at the end, unless the kernel or the session has ended before."""
        with self.connection() as client:
            client.hello(program, **hello)
            yield client
            if self.process.poll() is None:
                with contextlib.suppress(Denied):
                    client.call("close_handle", handle=client.handle)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        if not readable(self.pidfd):
            raise AssertionError(f"the kernel did not end:\n{self.said()}")
        return self.process.wait()

    def stop(self) -> None:
        """End it as a service manager would, and check that it left nothing."""
        self.alive()
        self.signal(signal.SIGTERM)
        assert self.ended() == 0, self.said()
        assert self.left() == []

    def left(self) -> list[str]:
        """Files that a stopped kernel should have removed."""
        left = [str(path) for path in self.runtime.iterdir() if path.name not in STAYS]
        return left + ([str(self.buffers)] if self.buffers.exists() else [])

    def close(self) -> None:
        """End it whatever state it is in, after a failure."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self.clean()
        os.close(self.pidfd)

    def clean(self) -> None:
        """Remove what a killed kernel cannot."""
        shutil.rmtree(self.buffers, ignore_errors=True)

    def children(self) -> dict[int, str]:
        """Pids of its child processes, with their command lines."""
        found = {}
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            for pid in (task / "children").read_text().split():
                with contextlib.suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_bytes()
                    found[int(pid)] = line.replace(b"\0", b" ").decode(errors="replace").strip()
        return found


@contextlib.contextmanager
def running(folder: Path, config: str = "", **how: Any) -> Iterator[KernelProcess]:
    """A kernel that is stopped with SIGTERM at the end, with all checks, unless the block ended it."""
    kernel = KernelProcess(folder, config, **how)
    try:
        yield kernel
        if kernel.process.poll() is None:
            kernel.stop()
    finally:
        kernel.close()


def buffer_folder(runtime: Path, uid: int) -> Path:
    """Where a kernel keeps its shared buffers."""
    shared_memory = os.environ.get("LLMOS_SHM_DIR", "/dev/shm")
    return Path(shared_memory) / f"llmos-{uid}-{hashlib.sha256(os.fsencode(runtime)).hexdigest()[:12]}"


def readable(descriptor: int, seconds: float = PATIENCE_S) -> bool:
    """Wait until a descriptor is readable; a pidfd is when its process has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@contextlib.contextmanager
def watched(pid: int) -> Iterator[Callable[[], None]]:
    """A function that waits for the end of a process, whoever its parent is."""
    descriptor = os.pidfd_open(pid)

    def wait() -> None:
        assert readable(descriptor), f"process {pid} did not end"

    try:
        yield wait
    finally:
        os.close(descriptor)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Kill a process and wait until it has ended."""
    with watched(pid) as wait:
        os.kill(pid, number)
        wait()


def eventually(kernel: KernelProcess, holds: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait until something holds that no event tells of, such as the close of a connection by another thread."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if readable(kernel.pidfd, 0.01):
            kernel.alive()
        assert time.monotonic() < deadline, f"it did not come to pass: {what()}"


def _read_line(descriptor: int) -> str:
    line = b""
    while not line.endswith(b"\n"):
        assert readable(descriptor), "the kernel did not get ready"
        data = os.read(descriptor, 100)
        if not data:
            break
        line += data
    return line.decode()
