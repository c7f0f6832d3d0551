"""What the models and conversations of an engine take, as rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from llmos.syscalls.errors import NoDeviceMemory

from ..contract import FailedEvent, Overrun, Row, StepEvent
from .measuring import absent_bytes
from .memory import tensors_of
from .models import Entry
from .paged_runner import PagedRunner

if TYPE_CHECKING:
    from .runner import Conversation, Runner


def rows_of(entries: Mapping[str, Entry], conversations: Iterable[Conversation]) -> list[Row]:
    """Rows of all models, on the device and on the host, and of conversations that hold bytes of their own."""
    rows = [row for entry in entries.values() for row in (*entry.rows(), *entry.host_rows())]
    for conversation in conversations:
        entry = entries[conversation.model]
        held = conversation.bytes()
        shape = (entry.base or entry).footprint.conversation
        if shape is not None:
            rows.append(Row("kv", conversation.id, predicted=shape.bytes(conversation.max_tokens), allocator=held))
    return rows


def absent(entries: Mapping[str, Entry]) -> dict[tuple[str, str], int]:
    """Of the bytes that rows count those that were never written or are not in memory, by (what, owner)."""
    found = {}
    for id, entry in entries.items():
        if entry.base is None and entry.resident is not None:
            paged = [each for each in entry.resident.runners if isinstance(each, PagedRunner)]
            weights = [*tensors_of(entry.resident.bundle.module), *(own for each in paged for own in each.weights)]
            found["weights", id] = absent_bytes(weights)
            found["kv", id] = absent_bytes(page for each in paged for page in each.pages)
    return found


def explained(entries: Mapping[str, Entry], runner: Runner, events: Sequence[StepEvent]) -> Sequence[StepEvent]:
    """What a runner told, with the overruns behind a lack of memory: the allocation that failed came on top of what was
    planned for a step of its model."""
    if not any(isinstance(event, FailedEvent) and isinstance(event.error, NoDeviceMemory) for event in events):
        return events
    residents = {entry: entry.resident for entry in entries.values() if entry.base is None and entry.resident}
    planned = next((e.footprint.workspace for e, resident in residents.items() if runner in resident.runners), 0)
    return [
        replace(event, overrun=Overrun(planned, planned + event.error.needed))
        if isinstance(event, FailedEvent) and isinstance(event.error, NoDeviceMemory)
        else event
        for event in events
    ]


def resting_bytes(entries: Mapping[str, Entry]) -> int:
    """What models that sleep take of the host's memory."""
    return sum(row.allocator for entry in entries.values() for row in entry.host_rows())
