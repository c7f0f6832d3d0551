"""The picture of the whole system that the dashboard draws once a second. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from llmos.syscalls.types import Advice, Alert, LedgerRow, ObjectInfo

from . import alerts
from .rates import Reading, rates


HOST = "host"
"""What the ledger calls the memory of the machine."""


@dataclass(frozen=True)
class Look:
    """What was read of the kernel at one time."""

    at: float
    """Seconds since the epoch."""
    system: ObjectInfo | None
    devices: Sequence[ObjectInfo]
    drivers: Sequence[ObjectInfo]
    models: Sequence[ObjectInfo]
    tasks: Sequence[ObjectInfo]
    rows: Sequence[LedgerRow]
    metrics: Reading = field(default_factory=dict)
    raised: Sequence[Alert] = ()
    """Alerts by the rules of the kernel's configuration."""
    advice: Sequence[Advice] = ()
    queues: Sequence[Mapping[str, Any]] = ()


def picture(now: Look, looks: Sequence[Look], draining: bool) -> dict[str, Any]:
    """The event `overview`.

    Args:
        looks: the earlier ones, oldest first: of a minute.
        draining: whether the gateway is stopping.
    """
    before = looks[-1] if looks else now
    recent = next((look for look in looks if look.at >= now.at - 10), before)
    minute = looks[0] if looks else now
    devices = [*(_device(info, now) for info in now.devices), *_host(now)]
    warned = (
        *alerts.of_drivers([*now.drivers, *now.devices]), *alerts.of_devices(devices),
        *alerts.of_traffic(now.metrics, before.metrics, minute.metrics), *alerts.of_gateway(draining),
        *alerts.of_rules(now.raised),
    )  # fmt: skip
    return {
        "at": now.at,
        "kernel": kernel("running", now.system),
        "devices": devices,
        "drivers": [_driver(info) for info in now.drivers],
        "models": [_model(info, now.metrics) for info in now.models],
        "tasks": [_task(info) for info in now.tasks],
        "rates": rates(now.metrics, before.metrics, recent.metrics, now.at - before.at),
        "alerts": list({each["id"]: each for each in warned}.values()),
        "advice": [msgspec.to_builtins(each) for each in now.advice],
        "queues": list(now.queues),
    }


def kernel(state: str, system: ObjectInfo | None) -> dict[str, Any]:
    """The kernel itself: `running` or `gone`."""
    fields = system.fields if system is not None else {}
    return {
        "state": state,
        "version": fields.get("version", ""),
        "pid": fields.get("pid", 0),
        "since": system.since if system is not None else 0.0,
    }


def gone(last: Mapping[str, Any] | None, at: float) -> dict[str, Any]:
    """The picture while there is no kernel: the last one, marked."""
    lists = ("devices", "drivers", "models", "tasks", "alerts", "advice", "queues")
    nothing: dict[str, Any] = {name: [] for name in lists}
    empty = {"kernel": kernel("gone", None), **nothing, "rates": rates({}, {}, {}, 0.0)}
    seen = dict(last) if last is not None else empty
    return {**seen, "at": at, "kernel": {**seen["kernel"], "state": "gone"}, "rates": rates({}, {}, {}, 0.0)}


def _rows(device: str, now: Look) -> list[dict[str, Any]]:
    names = {str(model.fields.get("weights", "")): model.name for model in now.models}
    ids = {each.id for each in (*now.models, *now.tasks)}
    return [
        {"what": row.what, "owner": names.get(row.owner, row.owner if row.owner in ids else ""), "bytes": _held(row)}
        for row in now.rows
        if row.device == device and _held(row)
    ]


def _host(now: Look) -> list[dict[str, Any]]:
    """The memory of the machine, a device of the ledger without a driver; nothing while its size is not known."""
    total = now.metrics.get(f'llmos_device_total_bytes{{device="{HOST}"}}')
    free = now.metrics.get(f'llmos_device_bytes{{device="{HOST}",what="free"}}')
    if total is None or total.value <= 0:
        return []
    return [
        {
            "id": f"device:{HOST}", "name": HOST, "state": "ready", "health": "ok", "total": int(total.value),
            "free": int(free.value) if free is not None else 0, "rows": _rows(HOST, now), "restarts": 0, "cause": "",
            "description": "the memory of the machine, which devices without their own share",
        }
    ]  # fmt: skip


def _device(info: ObjectInfo, now: Look) -> dict[str, Any]:
    fields = info.fields
    rows = _rows(info.name, now)
    free = fields.get("free")
    if free is None:
        free = max(0, info.bytes - sum(row["bytes"] for row in rows))
    return {
        "id": info.id,
        "name": info.name,
        "state": info.state,
        "health": info.health,
        "total": info.bytes,
        "free": free,
        "rows": rows,
        "restarts": fields.get("restarts", 0),
        "cause": fields.get("cause", ""),
        "description": fields.get("description", ""),
    }


def _held(row: LedgerRow) -> int:
    return max(row.ledger, row.predicted, row.allocator)


def _driver(info: ObjectInfo) -> dict[str, Any]:
    fields = info.fields
    return {
        "name": info.name,
        "state": info.state,
        "health": info.health,
        "restarts": fields.get("restarts", 0),
        "pid": fields.get("pid", 0),
        "cause": fields.get("cause", ""),
    }


def _model(info: ObjectInfo, metrics: Reading) -> dict[str, Any]:
    fields = info.fields

    def gauge(name: str) -> float:
        found = metrics.get(f'{name}{{model_name="{info.name}"}}')
        return found.value if found is not None else 0.0

    return {
        "id": info.id,
        "name": info.name,
        "path": fields.get("path", ""),
        "version": fields.get("version", ""),
        "device": fields.get("device", ""),
        "state": info.state,
        "health": info.health,
        "bytes": info.bytes,
        "running": int(gauge("llmos_num_requests_running")),
        "waiting": int(gauge("llmos_num_requests_waiting")),
        "requests": fields.get("requests", 0),
        "tokens_per_s": fields.get("tokens_per_s", 0.0),
        "throughput": fields.get("throughput", 0.0),
        "first_token_s": fields.get("first_token_s", 0.0),
        "base": fields.get("base", ""),
        "rung": fields.get("rung", ""),
        "keep_alive": fields.get("keep_alive", -1),
        "pinned": fields.get("pinned", False),
        "used": fields.get("used", 0.0),
        "chat": fields.get("chat", False),
        "tasks": fields.get("tasks", []),
    }


def _task(info: ObjectInfo) -> dict[str, Any]:
    fields = info.fields
    return {
        "id": info.id,
        "kind": fields.get("kind", ""),
        "name": info.name,
        "state": info.state,
        "since": info.since,
        "progress": fields.get("progress") or {"done": 0, "total": 0, "unit": "", "stage": ""},
    }
