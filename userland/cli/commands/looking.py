"""Commands that look: ps, devices, drivers, sessions, tasks, stat, why, logs, metrics, events."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Literal

from llmos.syscalls import calls
from llmos.syscalls.errors import NotFound
from llmos.syscalls.types import Event, Kind, ObjectInfo, Record

from .. import text
from ..cli import Cli

Row = Sequence[object]


def _listing(kind: Kind, columns: Sequence[str], row: Callable[[ObjectInfo], Row], empty: str) -> Callable[..., int]:
    """A command that lists the objects of one kind."""

    def command(cli: Cli, values: Namespace) -> int:
        found = cli.system.objects(kind)
        if not cli.out.result(found):
            cli.out.table(columns, [row(info) for info in found], empty)
        return 0

    return command


def model_row(info: ObjectInfo) -> Row:
    f = info.fields
    keep = "forever" if f.get("pinned") or f.get("keep_alive", -1) < 0 else text.duration(f["keep_alive"])
    return (
        info.name, info.id, info.state, f.get("device", ""), text.size(info.bytes), f.get("context", ""),
        f.get("running", 0), f.get("waiting", 0), "pinned" if f.get("pinned") else keep, text.ago(f.get("used", 0)),
    )  # fmt: skip


MODEL_COLUMNS = ("NAME", "ID", "STATE", "DEVICE", ">SIZE", ">CONTEXT", ">RUNNING", ">WAITING", "KEPT", "USED")


def device_row(info: ObjectInfo) -> Row:
    f = info.fields
    free = f.get("free", 0)
    used = max(0, info.bytes - free)
    # A device whose driver is down has told no size: nothing is known of its memory.
    sizes = [text.size(size) for size in (info.bytes, used, free)] if info.bytes else [""] * 3
    share = f"{100 * used / info.bytes:.0f} %" if info.bytes else ""
    return (
        info.name, info.state, info.health, *sizes, share,
        f.get("description", "") or f.get("cause", ""),
    )  # fmt: skip


DEVICE_COLUMNS = ("NAME", "STATE", "HEALTH", ">MEMORY", ">USED", ">FREE", ">SHARE", "DESCRIPTION")


def _driver_row(info: ObjectInfo) -> Row:
    f = info.fields
    return (
        info.name, f.get("group", ""), info.state, f.get("pid") or "", f.get("restarts", 0), f.get("threads", ""),
        text.ago(info.since), f.get("busy_with", ""), f.get("cause", ""),
    )  # fmt: skip


def _session_row(info: ObjectInfo) -> Row:
    f = info.fields
    return (
        info.id, f.get("program", ""), f.get("pid", ""), f.get("uid", ""), f.get("tenant", ""), f.get("requests", 0),
        text.ago(info.since),
    )  # fmt: skip


def _task_row(info: ObjectInfo) -> Row:
    f = info.fields
    argv = " ".join(f.get("argv", []))
    return info.id, f.get("kind", ""), info.state, f.get("pid") or "", f.get("exit"), text.ago(info.since), argv


ps = _listing(Kind.MODEL, MODEL_COLUMNS, model_row, "no model is loaded; try: load /models/tiny")
devices = _listing(Kind.DEVICE, DEVICE_COLUMNS, device_row, "there is no device")
drivers = _listing(
    Kind.DRIVER,
    ("NAME", "KIND", "STATE", ">PID", ">RESTARTS", ">THREADS", "SINCE", "BUSY WITH", "LAST CAUSE"),
    _driver_row,
    "there is no driver",
)
sessions = _listing(
    Kind.SESSION, ("ID", "PROGRAM", ">PID", ">UID", "TENANT", ">REQUESTS", "SINCE"), _session_row, "no sessions"
)
tasks = _listing(
    Kind.TASK, ("ID", "KIND", "STATE", ">PID", ">EXIT", "SINCE", "COMMAND"), _task_row, "there are no tasks"
)

_FINDABLE = (Kind.MODEL, Kind.DEVICE, Kind.DRIVER, Kind.TASK, Kind.CONTEXT, Kind.LEASE, Kind.SESSION, Kind.MOUNT)


def find_any(cli: Cli, name: str) -> ObjectInfo | None:
    """The object of any kind with this name, id or path."""
    for kind in _FINDABLE:
        for info in cli.system.objects(kind):
            if name in (info.name, info.id, info.fields.get("path")):
                return info
    return None


def stat(cli: Cli, values: Namespace) -> int:
    name: str = values.object
    info = find_any(cli, name)
    if info is None and name.startswith("/"):
        entry = cli.system.stat_path(name)
        if not cli.out.result(entry):
            about = [("path", entry.path), ("kind", entry.kind), ("size", text.size(entry.bytes))]
            cli.out.pairs([*about, ("version", entry.version), *entry.fields.items()])
        return 0
    if info is None and name == "system":
        info = cli.system.stat()
    if info is None:
        raise NotFound(f"nothing is called {name!r}: see ps, devices, drivers, tasks, sessions, or give a path")
    if not cli.out.result(info):
        about = [("id", info.id), ("kind", info.kind), ("name", info.name), ("state", info.state)]
        more = [("health", info.health), ("bytes", text.size(info.bytes) if info.bytes else ""), ("owner", info.owner)]
        cli.out.pairs([*about, *more, ("since", text.clock(info.since)), *info.fields.items()])
        for reason in info.reasons:
            cli.out.line(f"  because {reason.text}")
    return 0


def why(cli: Cli, values: Namespace) -> int:
    reasons = cli.system.why(values.object)
    if cli.out.result(reasons):
        return 0
    if not reasons:
        raise NotFound(f"nothing is known about {values.object!r}: see ps, tasks, devices, drivers for names and ids")
    for reason in sorted(reasons, key=lambda reason: reason.at or math.inf):
        rule = f"  (rule: {reason.rule})" if reason.rule else ""
        cli.out.line(f"{text.clock(reason.at) if reason.at else 'now':19}  {reason.text}{rule}")
    return 0


def _record_line(record: Record) -> str:
    about = f" [{record.about}]" if record.about and record.about not in record.text else ""
    return f"{text.clock(record.at)} {record.level:7} {record.unit}: {record.text}{about}"


def logs(cli: Cli, values: Namespace) -> int:
    about = values.about or ""
    level: Literal["debug", "info", "warning", "error"] = values.level or "info"
    call = calls.ReadJournal(
        system=cli.system.handle, after=-1, about=about, level=level, limit=values.lines or 50
    )
    records = cli.system.client.call(call)
    _print_records(cli, records)
    while values.follow:
        with cli.system.watch([], about=about) as events:
            for _event in events:
                seen = records[-1].seq if records else 0
                following = calls.ReadJournal(
                    system=cli.system.handle, after=seen, about=about, level=level, limit=1000
                )
                new = cli.system.client.call(following)
                _print_records(cli, new)
                records = new or records
    return 0


def _print_records(cli: Cli, records: Sequence[Record]) -> None:
    for record in records:
        if not cli.out.result(record):
            cli.out.line(_record_line(record))


def metrics(cli: Cli, values: Namespace) -> int:
    found = cli.system.metrics(values.prefix or "")
    if not cli.out.result(found):
        rows = [(name, metric.kind, f"{metric.value:g}", metric.unit, metric.help) for name, metric in found.items()]
        cli.out.table(("NAME", "KIND", ">VALUE", "UNIT", "MEANING"), rows, "no such metric")
    return 0


def events(cli: Cli, values: Namespace) -> int:
    with cli.system.watch([], about=values.about or "") as stream:
        for event in stream:
            if not cli.out.result(event):
                cli.out.write(_event_line(event) + "\n")
    return 0


def _event_line(event: Event) -> str:
    lost = f" ({event.lost} lost before)" if event.lost else ""
    return f"{text.clock(event.at)} {event.kind} {event.about} {text.fields(event.fields)}{lost}"
