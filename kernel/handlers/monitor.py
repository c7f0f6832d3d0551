"""Metrics, journal, events."""

from __future__ import annotations

from typing import get_args

from llmos.syscalls import calls
from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Done, Metric, Record

from ..instruments import refresh
from ..objects import EventKind
from ..requests import Request, drop_events
from .registry import implements

EVENT_KINDS: tuple[str, ...] = get_args(EventKind)


@implements(calls.ReadMetrics)
def read_metrics(request: Request, call: calls.ReadMetrics) -> dict[str, Metric]:
    refresh(request.kernel)
    return request.kernel.instruments.registry.snapshot(call.prefix)


@implements(calls.ReadJournal)
def read_journal(request: Request, call: calls.ReadJournal) -> list[Record]:
    return request.kernel.decisions.read(call.after, call.about, call.level, call.limit)


@implements(calls.WatchEvents)
async def watch_events(request: Request, call: calls.WatchEvents) -> Done:
    kernel = request.kernel
    for kind in call.kinds:
        if kind not in EVENT_KINDS:
            raise BadArgument(
                f"watch_events: there are no events of the kind {kind[:80]!r}; {suggest(kind, EVENT_KINDS)}",
                name="kinds",
                got=kind[:80],
                want=", ".join(EVENT_KINDS),
            )
    request.merge = drop_events
    kernel.watchers[request.id] = request
    stopped = kernel.runner.future()

    def stop() -> bool:
        stopped.set(Done())
        return True

    request.on_cancel = stop
    done: Done = await stopped
    return done
