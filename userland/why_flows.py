"""What can be asked about decisions: why, what is advised, what is alarming. `self` is a System or an AsyncSystem."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from llmos.syscalls.errors import NotDirectory, NotFound
from llmos.syscalls.types import Advice, Alert, Kind, Reason, Record

from . import system_flows
from .flow import Flow
from .held import Whole

Self = Whole[Any]
KINDS = (Kind.MODEL, Kind.DEVICE, Kind.DRIVER, Kind.TASK, Kind.CONTEXT, Kind.LEASE, Kind.SESSION)
MOST = 1000
"""Records that are read of one id."""


def why(self: Self, about: str) -> Flow[list[Reason]]:
    """What was decided about an object, by name or id, or about a request, and why, oldest first: what the kernel holds
    against it now, then the records of the journal, each with its reasons. A request is also explained by what was
    decided meanwhile about its model; one that has ended is known as long as the kernel remembers it."""
    found: list[Reason] = []
    about = about.removeprefix("uid:")
    ids = [about]
    for kind in KINDS:
        for info in (yield from system_flows.objects(self, kind)):
            if about in (info.name, info.id, info.fields.get("path", info.id)):
                found += info.reasons
                ids += [info.id] if info.id not in ids else []
    found += yield from _under_way(self, about)
    records: list[Record] = []
    for name in ids:
        records += yield from system_flows.journal(self, about=name, level="debug", limit=MOST)
    records += yield from _seen(self, records)
    return told_once(found, records)


def _under_way(self: Self, about: str) -> Flow[list[Reason]]:
    """Why a request still waits, and what was decided about it so far; nothing for what is no request in flight."""
    if "/" in about or not about.startswith("r-"):
        return []
    try:
        text = yield from system_flows.read(self, f"/proc/requests/{about}")
    except (NotFound, NotDirectory):
        return []
    return msgspec.convert(msgspec.json.decode(text)["reasons"], list[Reason])


def _seen(self: Self, records: list[Record]) -> Flow[list[Record]]:
    """What was decided about the things that records refer to, while those records were written."""
    ids = dict.fromkeys(id for record in records for id in record.fields.get("see", ()))
    times = [record.at for record in records]
    found: list[Record] = []
    for id in ids:
        about = yield from system_flows.journal(self, about=id, level="info", limit=MOST)
        found += [record for record in about if min(times) <= record.at <= max(times)]
    return found


def told_once(now: Iterable[Reason], records: Iterable[Record]) -> list[Reason]:
    """Reasons and the records that they stand in as one list by time, in which nothing is said twice."""
    rest, lines, told = list(now), dict[object, Reason](), set[tuple[str, str, float]]()
    for record in {record.seq: record for record in records}.values():
        said = [reason for reason in record.reasons if reason.text in record.text]
        told |= {_key(reason) for reason in said}
        first = said[0] if said else Reason(code=record.unit, text="")
        line = msgspec.structs.replace(first, text=record.text, at=record.at)
        key: object = _key(first) if said else record.seq
        known = lines.get(key)  # a decision, and the record of what was done by it: the one that says more
        if known is None or known.text in line.text:
            lines[key] = line
        others = [reason for reason in record.reasons if reason not in said]
        rest += [msgspec.structs.replace(reason, at=reason.at or record.at) for reason in others]
    once = {_key(reason): reason for reason in rest if _key(reason) not in told}
    return sorted([*lines.values(), *once.values()], key=lambda reason: reason.at or math.inf)


def _key(reason: Reason) -> tuple[str, str, float]:
    return reason.code, reason.text, reason.at


def advice(self: Self) -> Flow[list[Advice]]:
    """What would make the system better, with evidence and expected gain."""
    return msgspec.json.decode((yield from system_flows.read(self, "/sys/advice")), type=list[Advice])


def alerts(self: Self) -> Flow[list[Alert]]:
    """The alerts that are raised now."""
    return msgspec.json.decode((yield from system_flows.read(self, "/sys/alerts")), type=list[Alert])
