"""What commands print: tables and sentences for people, or exactly the call's result with `--json`."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import msgspec

from llmos.syscalls.errors import LlmosError

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {
    "ok": "green", "ready": "green", "awake": "green", "running": "green", "done": "green", "open": "green",
    "loading": "yellow", "starting": "yellow", "suspect": "yellow", "asleep": "cyan", "sleeping": "cyan",
    "backoff": "yellow", "paused": "cyan", "stopped": "dim", "cold": "dim", "failed": "bold red", "lost": "red",
    "warning": "yellow", "error": "bold red", "down": "red", "cancelled": "dim",
}  # fmt: skip
"""How states are coloured."""
WIDE = 400
"""Columns where nobody watches: a pipe or a file has no edge to wrap at."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def safe(text: str) -> str:
    """Text without the control characters that would move a terminal's cursor or change its state."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


class Out:
    """Where a command prints. In the shell `target` may be a pipe or a file."""

    def __init__(self, as_json: bool = False, target: IO[str] | None = None) -> None:
        self.as_json = as_json
        self.target = target or sys.stdout
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """The rich console; made at the first use, since importing rich takes time."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self.target, highlight=False, width=None if self.terminal else WIDE)
        return self._console

    @property
    def terminal(self) -> bool:
        """Whether a person watches."""
        return self.target.isatty()

    def result(self, value: Any) -> bool:
        """With `--json`, print the value on one line; says whether it did."""
        if self.as_json:
            plain = msgspec.to_builtins(value, str_keys=True, order="deterministic")
            self.target.write(json.dumps(plain, ensure_ascii=False) + "\n")
            self.target.flush()
        return self.as_json

    def line(self, text: str = "") -> None:
        """One line of text, as it is."""
        self.target.write(text + "\n")

    def page(self, text: str) -> None:
        """Lines of text, wrapped between words where a person watches; what is wrapped stays below its beginning."""
        width = self.console.width if self.terminal else 0
        for line in text.splitlines():
            self.line("\n".join(_wrapped(line, width)) if len(line) > width > 0 else line)

    def write(self, text: str) -> None:
        """A piece of text, shown at once."""
        self.target.write(text)
        self.target.flush()

    def said(self, text: str) -> None:
        """Text of a model, shown at once; on a terminal without what would control it."""
        self.write(safe(text) if self.terminal else text)

    def note(self, text: str) -> None:
        """Something to know that is no result, on stderr."""
        if not self.as_json:
            sys.stderr.write(f"{text}\n")

    def bytes(self, data: bytes) -> None:
        """Bytes as they are; on a terminal, what is no text shows as replacement characters."""
        buffer = getattr(self.target, "buffer", None)
        if buffer is None or self.terminal:
            self.write(safe(data.decode("utf-8", "replace")) if self.terminal else data.decode("utf-8", "replace"))
            return
        self.target.flush()
        buffer.write(data)
        buffer.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str = "none") -> None:
        """A table; a column whose name starts with `>` is set to the right."""
        if not rows:
            self.line(empty)
            return
        self.console.print(self.grid(columns, rows))

    def grid(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Any:
        """The table as a rich object, for what is refreshed in place."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            right = column.startswith(">")
            last = column == columns[-1]
            table.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=not last)
        for row in rows:
            table.add_row(*(Text(safe(_cell(cell)), style=STYLES.get(str(cell), "")) for cell in row))
        return table

    def pairs(self, values: Sequence[tuple[str, object]]) -> None:
        """Names and values, one pair a line; empty values are left out."""
        shown = [(name, value) for name, value in values if value not in ("", None, [], {})]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.line(f"{name:<{width}}  {safe(str(value))}")


def _wrapped(line: str, width: int) -> list[str]:
    column = re.match(r" *(?:\S+ )*\S+ {2,}", line)
    text = line.lstrip()
    before = len(line) - len(text)
    after = column.end() if column and column.end() < width // 2 else before + 4
    return textwrap.wrap(
        text, width, initial_indent=" " * before, subsequent_indent=" " * after, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def show_error(error: Exception, as_json: bool) -> None:
    """An error on stderr: sentences for people, one object for programs."""
    if as_json:
        sys.stderr.write(json.dumps({"error": error_body(error)}) + "\n")
        return
    sys.stderr.write(f"llmos: {sentence(error)}\n")
    if isinstance(error, LlmosError):
        for line in _details(error):
            sys.stderr.write(f"  {line}\n")


def error_body(error: Exception) -> dict[str, Any]:
    """`code`, `name`, `message` and `fields`; code 0 for what is no error of a call."""
    if isinstance(error, LlmosError):
        wire = error.to_wire()
        return {name: wire[name] for name in ("code", "name", "message", "fields")}
    return {"code": 0, "name": type(error).__name__, "message": sentence(error), "fields": {}}


def sentence(error: Exception) -> str:
    """What happened, with which value."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _details(error: LlmosError) -> list[str]:
    reasons = [reason.get("text") or "" for reason in error.reasons]
    lines = [f"because {reason}" for reason in reasons if reason and reason not in str(error)]
    if tokens := getattr(error, "tokens_done", 0):
        lines.append(f"{tokens} tokens had been delivered")
    if wait := getattr(error, "retry_after_ms", 0):
        lines.append(f"try again in {wait / 1000:g} s")
    return lines
