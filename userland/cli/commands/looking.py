"""Commands that look: ps, drivers, sessions, tasks, stat, logs, metrics, events."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument, NotFound
from llmos.syscalls.types import Event, Kind, Metric, ObjectInfo, Record
from llmos.syscalls.wire import Progress

from .. import text
from ..cli import Cli
from .models import amount

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
        info.name, info.id, info.state, f.get("device", ""), text.size(info.bytes), f.get("context") or "",
        f.get("running", 0), f.get("waiting", 0), "pinned" if f.get("pinned") else keep, text.ago(f.get("used", 0)),
    )  # fmt: skip


MODEL_COLUMNS = ("NAME", "ID", "STATE", "DEVICE", ">SIZE", ">CONTEXT", ">RUNNING", ">WAITING", "KEPT", "USED")


def device_row(info: ObjectInfo) -> Row:
    f = info.fields
    about = f.get("description", "") or f.get("cause", "")
    return (info.name, info.state, info.health, *used(info.bytes, f.get("free", 0)), about)


def used(total: int, free: int) -> Row:
    """Total, used and free bytes, and the share that is used. A device whose driver is down has told no size: nothing
    is known of its memory."""
    if not total:
        return ("",) * 4
    taken = max(0, total - free)
    return (text.size(total), text.size(taken), text.size(free), f"{100 * taken / total:.0f} %")


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
    what = " ".join(f.get("argv", [])) or info.name
    if (far := f.get("progress")) and info.state in ("running", "paused"):
        what += f": {amount(msgspec.convert(far, Progress))}"  # tuning tells more than this
    return info.id, f.get("kind", ""), info.state, f.get("pid") or "", f.get("exit"), text.ago(info.since), what


ps = _listing(Kind.MODEL, MODEL_COLUMNS, model_row, "no model is loaded; try: load /models/tiny")
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
            fields = [(name, _plain(name, value)) for name, value in entry.fields.items()]
            cli.out.pairs([*about, ("version", entry.version), *fields])
        return 0
    if info is None and name == "system":
        info = cli.system.stat()
    if info is None:
        raise NotFound(f"nothing is called {name!r}: see ps, devices, drivers, tasks, sessions, or give a path")
    if not cli.out.result(info):
        cli.out.pairs(_facts(info))
        for reason in info.reasons:
            cli.out.line(f"  because {reason.text}")
    return 0


def _facts(info: ObjectInfo) -> list[tuple[str, object]]:
    """What is known of an object, each thing under a name of its own and as people read it."""
    about: dict[str, object] = {
        "id": info.id, "kind": info.kind, "name": info.name, "state": info.state, "health": info.health,
        "bytes": text.size(info.bytes) if info.bytes else "", "owner": info.owner, "since": text.clock(info.since),
    }  # fmt: skip
    for name, value in info.fields.items():
        if name == "memory_bytes" and value == info.bytes:
            continue
        about[f"{info.kind} {name}" if name in about else name] = _plain(name, value)
    return [*about.items()]


def _plain(name: str, value: Any) -> object:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return text.fields(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and name in _FIGURES:
        return _FIGURES[name](value)
    return value


_FIGURES: Mapping[str, Callable[[float], str]] = {
    "free": text.size, "memory_bytes": text.size, "parameters": text.count, "expires": text.clock,
    "used": lambda at: text.ago(at) or "never",
    "keep_alive": lambda seconds: "forever" if seconds < 0 else text.duration(seconds),
}  # fmt: skip
"""How figures are shown, by the name of the field."""


def _record_line(record: Record) -> str:
    about = f" [{record.about}]" if record.about and record.about not in record.text else ""
    return f"{text.clock(record.at)} {record.level:7} {record.unit}: {record.text}{about}"


def _about(cli: Cli, name: str) -> str:
    """What events and records call an object, by its name, id or path; empty when there is none."""
    info = find_any(cli, name) if name else None
    if info is None:
        return ""
    return info.name if info.kind in (Kind.DEVICE, Kind.DRIVER) else info.id


def logs(cli: Cli, values: Namespace) -> int:
    known = _about(cli, values.about)
    about = known or values.about or ""
    level: Literal["debug", "info", "warning", "error"] = values.level or "info"
    call = calls.ReadJournal(
        system=cli.system.handle, after=-1, about=about, level=level, limit=values.lines or 50
    )
    records = cli.system.client.call(call)
    if values.about and not records and not known:
        raise NotFound(f"the journal has no records about {about!r}: {_NAMES}, or the id of one that has ended")
    if values.about and not records:
        cli.out.note(f"the journal has no records about {values.about} of the level {level} or above")
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


_NAMES = "give the name, id or path of a model, device, driver, task, session, lease or mount"


def _print_records(cli: Cli, records: Sequence[Record]) -> None:
    for record in records:
        if not cli.out.result(record):
            cli.out.line(_record_line(record))


def metrics(cli: Cli, values: Namespace) -> int:
    found = cli.system.metrics(values.prefix or "")
    if not cli.out.result(found):
        rows = [(name, *measured(metric), metric.unit, metric.help) for name, metric in found.items()]
        cli.out.table(("NAME", "KIND", ">VALUE", "UNIT", "MEANING"), rows, "no such metric")
    return 0


def measured(metric: Metric) -> tuple[str, str]:
    """A metric's kind and value; of a histogram, whose value is a sum, the mean and of how many."""
    if metric.kind != "histogram":
        return metric.kind, f"{metric.value:g}"
    count = metric.buckets.get("+Inf", 0)
    return f"mean of {count}", f"{metric.value / count:g}" if count else ""


def events(cli: Cli, values: Namespace) -> int:
    name = values.about or ""
    about = _about(cli, name)
    try:
        with cli.system.watch([name] if name and not about else [], about=about) as stream:
            for event in stream:
                if not cli.out.result(event):
                    cli.out.write(_event_line(event) + "\n")
    except BadArgument as error:
        raise NotFound(f"nothing is called {name!r}: {_NAMES}, or a kind of events ({error.want})") from None
    return 0


def _event_line(event: Event) -> str:
    lost = f" ({event.lost} lost before)" if event.lost else ""
    return f"{text.clock(event.at)} {event.kind} {event.about} {text.fields(event.fields)}{lost}"
