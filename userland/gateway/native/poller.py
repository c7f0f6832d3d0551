"""Looks at the kernel once a second for all viewers of one tenant, while there are any."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from llmos.syscalls.calls import WatchEvents
from llmos.syscalls.errors import LlmosError
from llmos.syscalls.types import Record
from llmos.userland.async_objects import AsyncSystem
from llmos.userland.link import NoKernel

from ..core.caller import Caller
from ..core.respond import encoded, sse
from ..core.wiring import Gateway
from . import confine
from .asking import Visible, known
from .looking import look
from .overview import Look, gone, picture
from .past import point_of

PERIOD_S = 1.0
PATIENCE_S = 3.0
"""A kernel that answers no look for so long is taken for gone."""
_LOOKS = 60
_LOST = (LlmosError, NoKernel, TimeoutError)
AT_ONCE = 100
"""Records that are read at a time; a viewer that comes without a number is given so many of the newest."""
_MOST_WAITING = 500
"""Pieces that a viewer may have before it; a slower one is cut off and comes back."""


class Viewer:
    """One open stream: the pieces that it has not been sent yet."""

    def __init__(self, parts: frozenset[str], key: str, seq: int = -1) -> None:
        self.parts = parts
        self.key = key
        self.seq = seq
        """The last record of the journal that it has seen; -1 before it was given the newest ones."""
        self.fresh = True
        """It has not been told yet what was before it came."""
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        """None: the stream ends."""

    def give(self, part: str, piece: bytes) -> None:
        """Send a piece, if it is of a part that the viewer asked for, or of none."""
        if not part or part in self.parts:
            self.pieces.put_nowait(None if self.pieces.qsize() >= _MOST_WAITING else piece)


class Poller:
    """Reads for one tenant and tells all of its viewers.

    Args:
        gateway: of which it reads the sessions.
        caller: any of that tenant's callers.
    """

    def __init__(self, gateway: Gateway, caller: Caller) -> None:
        self._gateway = gateway
        self._caller = caller
        self._viewers: set[Viewer] = set()
        self._looks: deque[Look] = deque(maxlen=_LOOKS)
        self._last: dict[str, Any] | None = None
        self._lost = ""
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def idle(self) -> bool:
        """Nobody looks."""
        return not self._viewers

    def enter(self, viewer: Viewer) -> None:
        """Begin to tell a viewer; the first one starts the reading."""
        self._viewers.add(viewer)
        if self._last is not None:
            viewer.give("overview", sse(encoded(self._last), "overview"))
        if self._lost:
            viewer.give("", _gone(self._lost))
        self._wake.set()
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._look_on()), loop.create_task(self._watch_on())]

    async def leave(self, viewer: Viewer) -> None:
        """The viewer's stream has ended; the last one stops the reading."""
        self._viewers.discard(viewer)
        if self.idle:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            self._looks.clear()
            self._last, self._lost = None, ""

    # ---- looking

    async def _look_on(self) -> None:
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._look()
            except _LOST as error:
                self._is_gone(str(error) or "the kernel does not answer")
            for viewer in self._viewers:
                if not self._may_stay(viewer):
                    viewer.pieces.put_nowait(None)
            await self._rest(began + PERIOD_S)

    async def _rest(self, until: float) -> None:
        """Wait for the time of the next look; a viewer that comes meanwhile is given its records at once."""
        with contextlib.suppress(TimeoutError, *_LOST):
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    if not self._lost:
                        await self._journal(await self._gateway.sessions.system(self._caller))
        await asyncio.sleep(max(0.0, until - time.monotonic()))

    def _may_stay(self, viewer: Viewer) -> bool:
        """A stream ends with its key, and when the gateway stops."""
        return not self._gateway.state.draining and (not viewer.key or self._gateway.keys.valid(viewer.key))

    async def _look(self) -> None:
        system = await self._gateway.sessions.system(self._caller)
        if self._lost:
            await self._is_back(system)
        if any("overview" in viewer.parts for viewer in self._viewers):
            seen = await look(self._caller, system)
            self._tell_past(seen)
            self._last = picture(seen, self._looks, self._gateway.state.draining)
            self._looks.append(seen)
            self._tell("overview", sse(encoded(self._last), "overview"))
        await self._journal(system)

    def _tell_past(self, seen: Look) -> None:
        """Give those that have just come what was before: of the models and tasks that they see."""
        fresh = [viewer for viewer in self._viewers if viewer.fresh]
        if not fresh:
            return
        past = self._gateway.past
        figures = sse(encoded(past.figures({model.id for model in seen.models})), "past")
        points = sse(encoded(past.curves({task.id for task in seen.tasks})), "points")
        for viewer in fresh:
            viewer.fresh = False
            viewer.give("overview", figures)
            viewer.give("events", points)

    def _is_gone(self, why: str) -> None:
        if not self._lost:
            self._lost = why
            self._tell("", _gone(why))
        self._looks.clear()
        self._last = gone(self._last, time.time())
        self._tell("overview", sse(encoded(self._last), "overview"))

    async def _is_back(self, system: AsyncSystem) -> None:
        # The kernel that comes after another may count its records anew.
        newest = await system.journal(after=-1, limit=1, level="debug")
        last = newest[-1].seq if newest else 0
        for viewer in self._viewers:
            viewer.seq = min(viewer.seq, last)
        self._lost = ""
        self._tell("", sse(b"{}", "back"))

    # ---- the journal

    async def _journal(self, system: AsyncSystem) -> None:
        """Give each viewer the records that it has not seen: the newest ones at first."""
        if fresh := [viewer for viewer in self._viewers if viewer.seq < 0]:
            tell_records(*await self._records(system, -1), fresh)
        # Who comes while the records are read may have missed earlier ones: not told of these.
        if told := [viewer for viewer in self._viewers if viewer.seq >= 0]:
            tell_records(*await self._records(system, min(viewer.seq for viewer in told)), told)

    async def _records(self, system: AsyncSystem, after: int) -> tuple[list[Record], int]:
        """What the viewers may see of the records after a number, and the number of the last one."""
        found = await system.journal(after=after, limit=AT_ONCE)
        last = found[-1].seq if found else max(0, after)
        if self._caller.admin or not found:
            return found, last
        return confine.records(self._caller, found, await known(self._caller, system)), last

    # ---- events

    async def _watch_on(self) -> None:
        while True:
            with contextlib.suppress(*_LOST):
                await self._watch()
            await asyncio.sleep(PERIOD_S)

    async def _watch(self) -> None:
        system = await self._gateway.sessions.system(self._caller)
        visible = Visible(self._caller, system)
        await visible.begin()
        reader = await system.client.stream(WatchEvents(system=system.handle))
        try:
            async for event in reader:
                if await visible.sees(event):
                    self._tell("events", sse(encoded(event), "event"))
                    if point := point_of(event):
                        self._tell("events", sse(encoded(point), "point"))
        finally:
            await asyncio.shield(reader.close())

    def _tell(self, part: str, piece: bytes) -> None:
        """Give a piece to all who want the part; to everybody without one."""
        for viewer in self._viewers:
            viewer.give(part, piece)


def tell_records(found: Iterable[Record], last: int, told: Sequence[Viewer]) -> None:
    """Give records to who has not seen them; all have seen those up to the last number afterwards."""
    for record in found:
        piece = sse(encoded(record), "journal", str(record.seq))
        for viewer in told:
            if record.seq > viewer.seq:
                viewer.give("journal", piece)
    for viewer in told:
        viewer.seq = max(viewer.seq, last)


def _gone(why: str) -> bytes:
    return sse(encoded({"text": why}), "gone")
