"""Child processes of the kernel: hosts and programs. Exits are seen at once (pidfd), output is kept in a short tail."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from .pending import Runner, Timer

KILL_AFTER_S = 2.0
_TAIL_LINES = 100
_LINE_BYTES = 2000


class Watcher(Protocol):
    """The loop's table of file descriptors."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever `fd` is readable."""

    def watch_room(self, fd: int, wanted: bool) -> None:
        """Whether to call back as well when a watched `fd` has room for data."""

    def unwatch(self, fd: int) -> None:
        """Stop calling back."""


class Child:
    """One child process.

    Args:
        argv: program and arguments.
        env: its whole environment.
        on_exit: called once from the loop with the exit status (negative: the signal), after all output was read.
        on_line: called with each line of its output.
        pass_fds: descriptors it inherits, beside its input and output.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        runner: Runner,
        watcher: Watcher,
        on_exit: Callable[[int], None],
        on_line: Callable[[str], object],
        *,
        new_group: bool = False,
        cwd: str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._runner = runner
        self._watcher = watcher
        self._on_exit = on_exit
        self._on_line = on_line
        self._group = new_group
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._partial = b""
        self._kill_timer: Timer | None = None
        self.exit: int | None = None
        self._process = subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=new_group,
            cwd=cwd,
            pass_fds=pass_fds,
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            raise
        watcher.watch(self._pidfd, self._exited)
        watcher.watch(self._output, self._readable)

    def tail(self, lines: int = 20) -> str:
        """The last lines of its output."""
        return "\n".join(list(self._lines)[-lines:])

    def signal(self, number: int) -> None:
        """Send a signal to the process (or its whole group, if it has one of its own)."""
        if self.exit is None:
            if self._group:
                os.killpg(self.pid, number)
            else:
                self._process.send_signal(number)

    def terminate(self, grace_s: float = KILL_AFTER_S) -> None:
        """Ask it to end, and kill it after `grace_s` seconds."""
        self.signal(signal.SIGTERM)
        if self._kill_timer is None:
            self._kill_timer = self._runner.after(grace_s, lambda: self.signal(signal.SIGKILL))

    def kill_now(self) -> None:
        """Kill, wait and forget, without telling anybody."""
        self.signal(signal.SIGKILL)
        self._finish()

    def _readable(self) -> None:
        data = os.read(self._output, 1 << 14)
        if not data:
            self._watcher.unwatch(self._output)
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > _LINE_BYTES:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        text = line[:_LINE_BYTES].decode("utf-8", "replace").rstrip()
        self._lines.append(text)
        self._on_line(text)

    def _exited(self) -> None:
        self._on_exit(self._finish())

    def _finish(self) -> int:
        """Reap the process, read its last output, give back every descriptor."""
        self.exit = self._process.wait()
        self._drain_output()
        if self._group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._watcher.unwatch(self._pidfd)
        os.close(self._pidfd)
        self._watcher.unwatch(self._output)
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        return self.exit

    def _drain_output(self) -> None:
        """Read what the pipe still holds; a grandchild may keep it open, so this ends when nothing is there."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._output, 1 << 16):
                self._partial += data
        for line in self._partial.split(b"\n"):
            if line:
                self._line(line)
        self._partial = b""


def exit_text(status: int) -> str:
    """`exit status 3` or `killed by SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
