"""Commands about tasks and requests: wait, pause, resume, priority, cancel."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from llmos.syscalls.errors import NotFound, from_wire

from .. import text
from ..cli import Cli


def wait(cli: Cli, values: Namespace) -> int:
    result = cli.system.task(values.task).wait(timeout=values.timeout)
    value = result.value if isinstance(result.value, dict) else {}
    if "error" in value and not cli.out.as_json:
        raise from_wire(value["error"])
    if not cli.out.result(result):
        cli.out.line(f"{result.id} is {result.state}" + ("" if result.exit is None else f", exit status {result.exit}"))
        output = value.get("output")
        if output:
            cli.out.line(output)
    return 0 if result.state == "done" else 1


def _acting(action: str, state: str) -> Callable[[Cli, Namespace], int]:
    def command(cli: Cli, values: Namespace) -> int:
        info = getattr(cli.system.task(values.task), action)()
        if not cli.out.result(info):
            cli.out.line(f"{values.task} {state}")
        return 0

    return command


pause = _acting("pause", "is paused")
resume = _acting("resume", "runs again")


def priority(cli: Cli, values: Namespace) -> int:
    info = cli.system.task(values.task).set_priority(values.value)
    if not cli.out.result(info):
        cli.out.line(f"{values.task} has priority {values.value}")
    return 0


def cancel(cli: Cli, values: Namespace) -> int:
    try:
        task = cli.system.task(values.id)
    except NotFound:
        state = cli.system.cancel(values.id)
    else:
        state = task.cancel(grace=2.0 if values.grace is None else values.grace)
    if not cli.out.result(state):
        grace = "" if values.grace is None else f" within {text.duration(values.grace)}"
        cli.out.line(f"{state.id} is {state.state}{grace}")
    return 0
