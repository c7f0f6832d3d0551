"""Metrics, journal, events."""

from __future__ import annotations

from llmos.syscalls import calls
from llmos.syscalls.types import Done, Metric, Record

from ..instruments import refresh
from ..requests import Request, drop_events
from .registry import implements


@implements(calls.ReadMetrics)
def read_metrics(request: Request, call: calls.ReadMetrics) -> dict[str, Metric]:
    refresh(request.kernel)
    return request.kernel.instruments.registry.snapshot(call.prefix)


@implements(calls.ReadJournal)
def read_journal(request: Request, call: calls.ReadJournal) -> list[Record]:
    return request.kernel.journal.read(call.after, call.about, call.level, call.limit)


@implements(calls.WatchEvents)
async def watch_events(request: Request, call: calls.WatchEvents) -> Done:
    kernel = request.kernel
    request.merge = drop_events
    kernel.watchers[request.id] = request
    stopped = kernel.runner.future()

    def stop() -> bool:
        stopped.set(Done())
        return True

    request.on_cancel = stop
    done: Done = await stopped
    return done
