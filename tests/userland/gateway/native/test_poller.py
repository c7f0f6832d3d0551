"""What viewers are given: their parts, in order, and no end of it for a slow one."""

from __future__ import annotations

import asyncio

from llmos.syscalls.types import Record
from llmos.userland.gateway.native.poller import Viewer, tell_records


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


async def test_records_are_told_once_and_in_order() -> None:
    late, early = Viewer(frozenset({"journal"}), "", 2), Viewer(frozenset({"journal"}), "", -1)
    records = [Record(seq=seq, at=0.0, unit="x", level="info", about="", text=str(seq)) for seq in (1, 2, 3)]
    tell_records(records, 4, [late, early])
    tell_records(records, 4, [late, early])
    assert [viewer.pieces.qsize() for viewer in (late, early)] == [1, 3]
    assert early.pieces.get_nowait().startswith(b"id: 1\nevent: journal\n")  # type: ignore[union-attr]
    # What the key may not see counts as seen.
    assert (late.seq, early.seq) == (4, 4)
