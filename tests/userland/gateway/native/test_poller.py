"""What viewers are given: their parts, in order, and no end of it for a slow one."""

from __future__ import annotations

import asyncio

from llmos.syscalls.types import Event
from llmos.userland.gateway.native.poller import Viewer, point_of


async def test_a_viewer_gets_the_parts_that_it_asked_for() -> None:
    viewer = Viewer(frozenset({"journal"}), "")
    viewer.give("overview", b"no")
    viewer.give("journal", b"yes")
    viewer.give("", b"everybody")
    assert [viewer.pieces.get_nowait() for _ in range(2)] == [b"yes", b"everybody"]
    assert viewer.pieces.empty()


async def test_a_viewer_that_does_not_read_is_cut_off() -> None:
    viewer = Viewer(frozenset({"events"}), "")
    for _ in range(600):
        viewer.give("events", b"x")
    pieces = []
    while not viewer.pieces.empty():
        pieces.append(viewer.pieces.get_nowait())
    assert pieces.index(None) == 500
    await asyncio.sleep(0)


def test_a_point_of_a_curve_is_a_task_event_with_metrics() -> None:
    event = Event(kind="task", about="t-1", fields={"step": 5, "metrics": {"loss": 1.5}})
    assert point_of(event) == {"task": "t-1", "step": 5, "values": {"loss": 1.5}}
    assert point_of(Event(kind="task", about="t-1", fields={"state": "running"})) is None
    assert point_of(Event(kind="model", about="m", fields={"metrics": {"loss": 1.0}})) is None
