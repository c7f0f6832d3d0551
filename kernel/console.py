"""Lines of the journal on stderr, for a person or for a service manager, without ever waiting for the reader.

To a terminal: time, level, unit, text. Elsewhere: `<N>text` with syslog's priority, as systemd reads it (sd-daemon(3)).
"""

from __future__ import annotations

import os
import re
import select
import time

from llmos.syscalls.types import Record

_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LINE = 4000
"""Bytes of a line at most: a pipe that polls writable takes PIPE_BUF (4096) bytes without blocking (pipe(7))."""


class Console:
    """Shows records on a file descriptor; records below `level` are not shown, and those it cannot take are counted."""

    def __init__(self, fd: int, level: str = "info") -> None:
        self._fd = fd
        self._terminal = os.isatty(fd)
        self._priority = _PRIORITY[level]
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self.dropped = 0

    def show(self, record: Record) -> None:
        """Write one line if the reader takes it now."""
        if _PRIORITY[record.level] > self._priority:
            return
        line = self._line(record).encode()[:_LINE].decode(errors="ignore").encode() + b"\n"
        try:
            ready = self._poll.poll(0)
            if not ready or not ready[0][1] & select.POLLOUT:
                self.dropped += 1
                return
            os.write(self._fd, line)
        except OSError:
            self.dropped += 1

    def _line(self, record: Record) -> str:
        text = _CONTROL.sub(lambda match: repr(match[0])[1:-1], record.text)
        about = f" [{record.about}]" if record.about and record.about not in text else ""
        if not self._terminal:
            return f"<{_PRIORITY[record.level]}>{record.unit}: {text}{about}"
        clock = time.strftime("%H:%M:%S", time.localtime(record.at))
        return f"{clock} {record.level:7} {record.unit}: {text}{about}"
