"""See what the system does and why."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ..spec import Call, Stream
from ..types import Done, Event, Handle, Kind, Metric, Record, Right


class ReadMetrics(Call[dict[str, Metric]], name="read_metrics"):
    """Read counters, gauges and histograms, by full name with labels."""

    system: Annotated[Handle, Kind.SYSTEM, Right.READ, "the system"]
    prefix: Annotated[str, "only names that start so"] = ""


class ReadJournal(Call[list[Record]], name="read_journal"):
    """Read the journal forward from a sequence number; `after=-1` gives the last `limit` records."""

    system: Annotated[Handle, Kind.SYSTEM, Right.READ, "the system"]
    after: Annotated[int, Meta(ge=-1), "the last sequence number already seen; -1 for the newest records"] = 0
    about: Annotated[str, "only records about this stable id or name"] = ""
    level: Annotated[Literal["debug", "info", "warning", "error"], "the lowest level to show"] = "info"
    limit: Annotated[int, Meta(ge=1, le=10_000), "how many at most"] = 100


class WatchEvents(Call[Stream[Event, Done]], name="watch_events"):
    """Receive events as they happen, until the stream is cancelled."""

    system: Annotated[Handle, Kind.SYSTEM, Right.LIST, "the system"]
    kinds: Annotated[list[str], "kinds: device, driver, handle, lease, model, session, task; empty for all"] = []
    about: Annotated[str, "only events about this stable id"] = ""
    credit: Annotated[int, Meta(ge=1, le=100_000), "events that may be under way before the reader grants more"] = 64
