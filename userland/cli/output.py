"""Where a command prints: text and tables for people, JSON for programs, the same whether a terminal, a file or a pipe
listens. Colours, and the library for them, only where a terminal is.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import msgspec

from llmos.syscalls.wire import Progress

from . import format

if TYPE_CHECKING:
    from rich.console import Console

Rows = Sequence[Sequence[str]]

_STATES = {
    "green": ("ready", "awake", "running", "done", "ok", "yes"),
    "yellow": ("starting", "loading", "asleep", "paused", "queued", "suspect", "waking", "cold", "checkpointing"),
    "red": ("failed", "down", "cancelled", "error", "lost", "stopped", "no"),
    "dim": ("-",),
}
_COLOUR_OF = {state: colour for colour, states in _STATES.items() for state in states}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(value: Any) -> Any:
    """A result as plain types."""
    return msgspec.to_builtins(value)


class Output:
    """The two streams of a command.

    Args:
        stream: for results.
        errors: for everything else: notes, progress, errors.
        json: results as JSON.
    """

    def __init__(self, stream: TextIO | None = None, errors: TextIO | None = None, json: bool = False) -> None:
        self.stream = stream or sys.stdout
        self.errors = errors or sys.stderr
        self.json = json
        self._console: Console | None = None

    @property
    def terminal(self) -> bool:
        """Whether a person reads the results as they come."""
        return self.stream.isatty()

    @property
    def coloured(self) -> bool:
        return self.terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    @property
    def console(self) -> Console:
        """The terminal as `rich` sees it."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self.stream, highlight=False, emoji=False, markup=False)
        return self._console

    # ---- results

    def result(self, value: Any, human: Callable[[], None]) -> None:
        """Print the result of a call: as JSON when asked to, else for people."""
        if self.json:
            self.object(value)
        else:
            human()

    def object(self, value: Any) -> None:
        """One JSON object on one line."""
        self.line(msgspec.json.encode(plain(value)).decode())

    def line(self, text: str = "") -> None:
        """One line."""
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def write(self, text: str) -> None:
        """A piece of text, at once."""
        self.stream.write(text)
        self.stream.flush()

    def data(self, content: bytes) -> None:
        """Bytes as they are; on a terminal without what would control it."""
        buffer: BinaryIO | None = getattr(self.stream, "buffer", None)
        if buffer is not None and not self.terminal:
            buffer.write(content)
            buffer.flush()
        else:
            self.write(safe(content.decode("utf-8", "replace")))

    def table(self, columns: Sequence[str], rows: Rows, empty: str = "") -> None:
        """Rows under headings; `empty` is said when there are none."""
        if not rows:
            self.note(empty)
        elif self.coloured:
            self.console.print(rich_table(columns, rows))
        else:
            for line in plain_table(columns, rows):
                self.line(line)

    def fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and values, one pair per line."""
        width = max((len(name) for name, _ in pairs), default=0)
        for name, text in pairs:
            if self.coloured:
                from rich.text import Text

                self.console.print(Text(f"{name:{width}}  ", "bold") + Text(safe(text), _COLOUR_OF.get(text, "")))
            else:
                self.line(f"{name:{width}}  {safe(text)}")

    # ---- everything else

    def note(self, text: str) -> None:
        """Something to know that is no result."""
        if text and not self.json:
            self.errors.write(f"{text}\n")
            self.errors.flush()

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Callable[[Progress], None] | None]:
        """A bar for long work, on a terminal; it appears with the first news."""
        if self.json or not self.errors.isatty():
            yield None
            return
        bar = Bar(self.errors, what)
        try:
            yield bar.show
        finally:
            bar.end()


class Bar:
    """One line that shows how far work has come."""

    def __init__(self, stream: TextIO, what: str) -> None:
        self._stream = stream
        self._what = what
        self._bar: Any = None
        self._task: Any = None

    def show(self, progress: Progress) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            console = Console(file=self._stream, emoji=False, markup=False)
            columns = (
                TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[amount]}"),
                TimeElapsedColumn(),
            )  # fmt: skip
            self._bar = Bars(*columns, console=console, transient=True)
            self._task = self._bar.add_task(self._what, amount="")
            self._bar.start()
        done, total = progress.done, progress.total
        show = format.size if progress.unit in ("byte", "bytes", "B") else format.count
        amount = f"{show(done)} of {show(total)}" if total else show(done) if done else ""
        stage = f"{self._what}: {progress.stage}" if progress.stage else self._what
        self._bar.update(self._task, description=stage, completed=done, total=total or None, amount=amount)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def safe(text: str) -> str:
    """Text without the control characters that would move a terminal's cursor or change its state."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def plain_table(columns: Sequence[str], rows: Rows) -> list[str]:
    """Aligned columns, two spaces apart."""
    cells = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    return [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in [columns, *cells]
    ]


def rich_table(columns: Sequence[str], rows: Rows) -> Any:
    """The same for a terminal, with states in their colours."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe(cell), _COLOUR_OF.get(cell, "")) for cell in row))
    return table
