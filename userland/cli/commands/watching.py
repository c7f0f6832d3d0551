"""top: devices, models and requests, refreshed in place until q or Ctrl-C."""

from __future__ import annotations

import select
import sys
import termios
import tty
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmos.syscalls.types import Kind

from .. import text
from ..cli import Cli
from . import memory
from .looking import DEVICE_COLUMNS, MODEL_COLUMNS, device_row, model_row

INTERVAL_S = 2.0


def top(cli: Cli, values: Namespace) -> int:
    view_of = memory.view if values.memory else _view
    if cli.out.as_json and values.memory:
        cli.out.result(memory.figures(cli))
        return 0
    if cli.out.as_json:
        cli.out.result({"devices": cli.system.devices(), "models": cli.system.models(), "tasks": cli.system.tasks()})
        return 0
    from rich.console import Group
    from rich.text import Text

    interval = values.interval or INTERVAL_S
    if values.once or not cli.out.terminal:
        cli.out.console.print(Group(*view_of(cli)))
        return 0
    from rich.live import Live

    def view() -> Group:
        return Group(*view_of(cli), Text(), Text("q or Ctrl-C ends", style="dim"))

    with _keys(), Live(view(), console=cli.out.console, screen=True, auto_refresh=False) as live:
        while not _pressed(interval):
            live.update(view(), refresh=True)
    return 0


def _view(cli: Cli) -> list[Any]:
    """The whole picture as rich objects, one below the other."""
    from rich.text import Text

    system = cli.system
    facts, metrics = system.stat(), system.metrics("llmos_")
    sessions, flying = (metrics.get(name) for name in ("llmos_sessions", "llmos_requests_in_flight"))
    head = (
        f"llmos {facts.fields['version']}, pid {facts.fields['pid']}, up {text.ago(facts.since).removesuffix(' ago')}, "
        f"sessions: {sessions.value if sessions else 0:.0f}, requests in flight: {flying.value if flying else 0:.0f}"
    )
    devices = [device_row(info) for info in system.devices()]
    models = [model_row(info) for info in system.models()]
    tasks = [info for info in system.objects(Kind.TASK) if info.state in ("running", "queued", "paused")]
    parts: list[Any] = [Text(head, style="bold"), Text(), cli.out.grid(DEVICE_COLUMNS, devices), Text()]
    parts.append(cli.out.grid(MODEL_COLUMNS, models) if models else Text("no model is loaded", style="dim"))
    if tasks:
        rows = [(t.id, t.state, t.name, text.ago(t.since)) for t in tasks]
        parts += [Text(), cli.out.grid(("TASK", "STATE", "NAME", "SINCE"), rows)]
    return parts


@contextmanager
def _keys() -> Iterator[None]:
    """Read single keys while the view is shown."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(seconds: float) -> bool:
    """Wait for so long, or until q or Ctrl-C."""
    try:
        readable, _, _ = select.select([sys.stdin], [], [], seconds)
    except KeyboardInterrupt:
        return True
    return bool(readable) and sys.stdin.read(1) in ("q", "Q", "")
