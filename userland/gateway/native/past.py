"""What was before somebody looked: figures of the last half hour and the curves of runs, in bounded memory.

A tenant's poller reads while there are viewers (`poller`); this reads for all, seldom, in the gateway's own session,
and remembers. Who comes is given as much of it as it may see.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmos.syscalls.calls import WatchEvents
from llmos.syscalls.errors import LlmosError
from llmos.syscalls.types import Event
from llmos.userland.async_objects import AsyncSystem
from llmos.userland.link import NoKernel

from ..core.caller import Caller
from ..core.sessions import Sessions
from .looking import look
from .overview import Look, picture

PERIOD_S = 5.0
SAMPLES = 360
"""Half an hour of them."""
MOST_TASKS = 32
MOST_POINTS = 2000
"""Of one curve; a longer one is kept at half its resolution."""
PATIENCE_S = 3.0
USED, MODEL = "used:", "model:"
"""Before the ids of devices (bytes used) and models (tokens per second) in the names of series."""
EVERYBODY = Caller("", "gateway", "", frozenset({"admin"}))
_LOST = (LlmosError, NoKernel, TimeoutError)


@dataclass
class Curve:
    """Points of one run; every `stride`-th is kept, and the newest.

    Args:
        most: when there are more points than this, every second one is dropped.
    """

    most: int
    kept: list[dict[str, Any]] = field(default_factory=list)
    stride: int = 1
    count: int = 0
    newest: dict[str, Any] | None = None

    def add(self, point: dict[str, Any]) -> None:
        """A point that came after the others."""
        self.newest = None
        if self.count % self.stride:
            self.newest = point
        else:
            self.kept.append(point)
        self.count += 1
        if len(self.kept) > self.most:
            del self.kept[1::2]
            self.stride *= 2
            self.newest = point if self.kept[-1] is not point else None

    def points(self) -> list[dict[str, Any]]:
        """All that are kept, in their order."""
        return [*self.kept, self.newest] if self.newest is not None else self.kept


class Past:
    """Samples and curves. Pure: it is told what was read."""

    def __init__(self, samples: int = SAMPLES, tasks: int = MOST_TASKS, points: int = MOST_POINTS) -> None:
        self._samples: deque[tuple[float, dict[str, Any]]] = deque(maxlen=samples)
        self._curves: OrderedDict[str, Curve] = OrderedDict()
        self._tasks, self._points = tasks, points

    def add(self, at: float, values: dict[str, Any]) -> None:
        """Remember figures of a time, seconds since the epoch; without any, nothing was known then."""
        self._samples.append((at, values))

    def point(self, point: dict[str, Any]) -> None:
        """Remember a point of a curve: `task`, `step`, `values`."""
        task = str(point["task"])
        self._curves.setdefault(task, Curve(self._points)).add(point)
        self._curves.move_to_end(task)
        if len(self._curves) > self._tasks:
            self._curves.popitem(last=False)

    def figures(self, models: Collection[str]) -> dict[str, Any]:
        """The event `past`: `times`, and `series` by name; what was not known is null.

        Args:
            models: ids of those that the viewer may see.
        """
        names = sorted({name for _, values in self._samples for name in values})
        shown = [name for name in names if not name.startswith(MODEL) or name.removeprefix(MODEL) in models]
        return {
            "times": [at for at, _ in self._samples],
            "series": {name: [values.get(name) for _, values in self._samples] for name in shown},
        }

    def curves(self, tasks: Collection[str]) -> list[dict[str, Any]]:
        """The points of those tasks, in their order."""
        return [point for task, curve in self._curves.items() if task in tasks for point in curve.points()]


def figures_of(picture: Mapping[str, Any]) -> dict[str, Any]:
    """What is drawn over time, out of one overview; named as the page does it."""
    used = {f"{USED}{device['id']}": device["total"] - device["free"] for device in picture["devices"]}
    return {**picture["rates"], **used, **{f"{MODEL}{each['id']}": each["throughput"] for each in picture["models"]}}


def point_of(event: Event) -> dict[str, Any] | None:
    """A point of the curves of a task that tunes: the figures that its event tells of a step."""
    told = event.fields
    if event.kind != "task" or told.get("stage") not in ("train", "evaluate"):
        return None
    values = {name: value for name, value in told.items() if isinstance(value, float) and name != "fraction"}
    return {"task": event.about, "step": told.get("done", 0), "values": values}


class Recorder:
    """Fills a `Past` while the gateway runs, in the gateway's own session."""

    def __init__(self, sessions: Sessions, past: Past) -> None:
        self._sessions, self._past = sessions, past
        self._before: Look | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to read, in the running loop."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._look_on()), loop.create_task(self._watch_on())]

    async def stop(self) -> None:
        """Read no more."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _look_on(self) -> None:
        while True:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self.look(await self._sessions.own())
            except _LOST:
                self._before = None
                self._past.add(time.time(), {})
            await asyncio.sleep(PERIOD_S)

    async def look(self, system: AsyncSystem) -> None:
        """Read once. Rates are known from the second reading on, also of a kernel that comes after another."""
        now, before = await look(EVERYBODY, system), self._before
        self._before = now
        figures = figures_of(picture(now, [before] if before is not None else [], draining=False))
        if before is None:
            figures = {name: value for name, value in figures.items() if name.startswith((USED, MODEL))}
        self._past.add(now.at, figures)

    async def _watch_on(self) -> None:
        while True:
            with contextlib.suppress(*_LOST):
                await self._watch(await self._sessions.own())
            await asyncio.sleep(PERIOD_S)

    async def _watch(self, system: AsyncSystem) -> None:
        reader = await system.client.stream(WatchEvents(system=system.handle, kinds=["task"]))
        try:
            async for event in reader:
                if point := point_of(event):
                    self._past.point(point)
        finally:
            await asyncio.shield(reader.close())
