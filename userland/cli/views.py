"""Objects of the system as rows of tables. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmos.syscalls.types import Entry, ObjectInfo, Record

from .format import ago, count, duration, size, value

Column = tuple[str, Callable[[ObjectInfo], str]]


def field(name: str) -> Callable[[ObjectInfo], str]:
    """A column of one field."""
    return lambda info: value(info.fields.get(name))


def _keep_alive(info: ObjectInfo) -> str:
    seconds = info.fields.get("keep_alive", -1)
    return "for ever" if seconds < 0 else duration(seconds)


def _free(info: ObjectInfo) -> str:
    return size(info.fields.get("free", 0)) if info.bytes else "-"


def _age(info: ObjectInfo) -> str:
    return ago(info.since, time.time())


MODELS: Sequence[Column] = (
    ("NAME", lambda info: info.name), ("ID", lambda info: info.id), ("DEVICE", field("device")),
    ("STATE", lambda info: info.state), ("SIZE", lambda info: size(info.bytes)), ("CONTEXT", field("context")),
    ("REQUESTS", field("requests")), ("KEEP", _keep_alive),
    ("USED", lambda info: ago(info.fields.get("used", 0), time.time()) or "never"), ("PATH", field("path")),
)  # fmt: skip
DEVICES: Sequence[Column] = (
    ("NAME", lambda info: info.name), ("STATE", lambda info: info.state), ("HEALTH", lambda info: info.health),
    ("MEMORY", lambda info: size(info.bytes) if info.bytes else "-"), ("FREE", _free), ("RESTARTS", field("restarts")),
    ("KIND", field("kind")), ("DESCRIPTION", field("description")),
)  # fmt: skip
DRIVERS: Sequence[Column] = (
    ("NAME", lambda info: info.name), ("FOR", field("group")), ("STATE", lambda info: info.state),
    ("HEALTH", lambda info: info.health), ("PID", field("pid")), ("RESTARTS", field("restarts")),
    ("THREADS", field("threads")), ("DOES", field("busy_with")), ("CAUSE", field("cause")),
)  # fmt: skip
SESSIONS: Sequence[Column] = (
    ("ID", lambda info: info.id), ("PROGRAM", lambda info: info.name), ("PID", field("pid")), ("USER", field("uid")),
    ("TENANT", field("tenant")), ("REQUESTS", field("requests")), ("OPENED", _age),
)  # fmt: skip
TASKS: Sequence[Column] = (
    ("ID", lambda info: info.id), ("KIND", field("kind")), ("STATE", lambda info: info.state), ("PID", field("pid")),
    ("EXIT", field("exit")), ("STARTED", _age),
    ("PROGRAM", lambda info: " ".join(map(str, info.fields.get("argv", ()))) or info.name),
)  # fmt: skip
MOUNTS: Sequence[Column] = (
    ("PATH", lambda info: info.name), ("FILESYSTEM", field("filesystem")), ("MODE", field("mode")),
    ("SOURCE", field("source")),
)  # fmt: skip


def table(columns: Sequence[Column], infos: Sequence[ObjectInfo]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows; columns that are empty everywhere are left out."""
    rows = [[show(info) for _, show in columns] for info in infos]
    kept = [n for n in range(len(columns)) if n == 0 or any(row[n] not in ("-", "") for row in rows)]
    return [columns[n][0] for n in kept], [[row[n] for n in kept] for row in rows]


def entries(found: Sequence[Entry], long: bool) -> tuple[list[str], list[list[str]]]:
    """A folder: names, or names with what is known of them."""
    names = [entry.path.rpartition("/")[2] + ("/" if entry.kind == "folder" else "") for entry in found]
    if not long:
        return ["NAME"], [[name] for name in names]
    now = time.time()
    rows = [
        [name, entry.kind, size(entry.bytes) if entry.bytes else "-", entry.version or "-", ago(entry.mtime, now) or "-"]
        for name, entry in zip(names, found, strict=True)
    ]
    return ["NAME", "KIND", "SIZE", "VERSION", "CHANGED"], rows


def details(info: ObjectInfo) -> list[tuple[str, str]]:
    """Everything known about one object."""
    pairs = [("id", info.id), ("kind", info.kind), ("name", info.name), ("state", info.state), ("health", info.health)]
    if info.bytes:
        pairs.append(("size", size(info.bytes)))
    if info.owner:
        pairs.append(("owner", info.owner))
    if info.since:
        pairs.append(("since", ago(info.since, time.time())))
    pairs += [(name, shown(name, item)) for name, item in info.fields.items()]
    pairs += [("because", reason.text) for reason in info.reasons]
    return pairs


_BYTES = frozenset({"free", "memory_bytes", "bytes"})
_TIMES = frozenset({"used", "expires"})


def shown(name: str, item: Any) -> str:
    """A field with the unit its name implies."""
    if name in _BYTES and isinstance(item, int):
        return size(item)
    if name in _TIMES and isinstance(item, (int, float)) and item:
        return ago(item, time.time())
    if name == "parameters" and isinstance(item, int):
        return count(item)
    return value(item)


def record(line: Record) -> str:
    """One line of the journal."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.at))
    about = f" [{line.about}]" if line.about and line.about not in line.text else ""
    return f"{clock} {line.level:7} {line.unit}: {line.text}{about}"


def manifest(entry: Entry) -> list[tuple[str, str]]:
    """What `show` tells of a model."""
    fields: Mapping[str, Any] = entry.fields
    pairs = [("path", entry.path), ("kind", entry.kind), ("size", size(entry.bytes)), ("version", entry.version or "-")]
    pairs += [(name, shown(name, item)) for name, item in fields.items() if item not in (None, "", [], {})]
    return pairs
