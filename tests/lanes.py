"""Engines whose models decode in a lane, on the processor: captures that behave as a device's would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from tiny_models import silent, source_of
from torch import Tensor

from llmos.drivers.contract import ChunkEvent, DoneEvent, LoadSettings, Request, StepEvent
from llmos.drivers.engine.blocks import BlockManager
from llmos.drivers.engine.capture import Deferred, Eager
from llmos.drivers.engine.costs import StepCost, Work
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.lane.lane import Lane
from llmos.drivers.engine.lane.runner import LaneRunner
from llmos.drivers.engine.paged_runner import PagedRunner
from llmos.drivers.engine.scheduler import StepLimits, StepScheduler
from llmos.drivers.ops.table import OpTable

WARM_UPS = 2


class Late:
    """Numbers that are nowhere until somebody waits for them."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers.clone()
        self.waits = 0

    def wait(self) -> list[int]:
        self.waits += 1
        found: list[int] = self._numbers.tolist()
        return found


class Lagging(Eager):
    """Runs steps when they are made, as a device does that captures them, and lets numbers come late."""

    def __init__(self, buckets: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__(torch.device("cpu"), buckets)
        self.made: list[str] = []
        self.sent: list[Late] = []

    def make(self, run: Callable[[], None], what: str) -> Callable[[], None]:
        for _ in range(WARM_UPS):
            run()
        self.made.append(what)
        return run

    def down(self, numbers: Tensor) -> Deferred:
        self.sent.append(Late(numbers))
        return self.sent[-1]


def lane_engine(
    folder: Path, ops: OpTable, capture: Eager, ahead: bool = True, rows: int = 8, pages: int = 0, prefill: int = 32
) -> Engine:
    """An engine with the model `m` in a lane of at most `rows` rows, on so many pages beside the spare one."""
    engine = Engine(ops, prefill)
    engine.load("m", source_of(folder), LoadSettings(), silent)
    in_a_lane(engine, ops, capture, ahead, rows, pages, prefill)
    return engine


def in_a_lane(
    engine: Engine, ops: OpTable, capture: Eager, ahead: bool = True, rows: int = 8, pages: int = 0, prefill: int = 32
) -> LaneRunner:
    """Put a model that is loaded, and that nobody uses yet, into a lane."""
    resident = engine._entries["m"].awake()
    plain = resident.runners[0]
    assert isinstance(plain, PagedRunner)
    packed, pool = plain._model.packed, plain._model.pool
    assert packed is not None
    context = resident.bundle.about.context
    blocks = BlockManager(min(pool.pages - 1, pages or pool.pages))
    scheduler = StepScheduler(blocks, StepLimits(rows, rows + prefill, prefill, 4), StepCost(Work(1e6, 1e6, 1e3)))
    lane = Lane(packed, plain._shared, ops, capture, rows, context, pool.pages - 1)
    lane.prepare(lambda: None)
    made = LaneRunner(
        plain._bundle, plain._shared, plain._model, blocks, scheduler, plain._vocabulary, plain._compiling._grammars,
        lane, ahead,
    )  # fmt: skip
    resident.runners = [made, *resident.runners[1:]]
    return made


def runner(engine: Engine) -> LaneRunner:
    found = engine._entries["m"].awake().runners[0]
    assert isinstance(found, LaneRunner)
    return found


def run(
    engine: Engine, coming: Mapping[int, Sequence[Request]], cancels: Mapping[int, Sequence[str]] | None = None
) -> dict[str, list[StepEvent]]:
    """All events by request; requests come, and are cancelled, before the steps of these numbers."""
    events: dict[str, list[StepEvent]] = {request.id: [] for requests in coming.values() for request in requests}
    last = max(*coming, *(cancels or {}), 0)
    for at in range(5000):
        for request in coming.get(at, ()):
            engine.submit(request)
        for id in (cancels or {}).get(at, ()):
            engine.cancel(id)
        for event in engine.step():
            events[event.request].append(event)
        ended = all(found and not isinstance(found[-1], ChunkEvent) for found in events.values())
        if at >= last and ended:
            return events
    raise AssertionError("requests never ended")


def last(events: Sequence[StepEvent]) -> DoneEvent:
    assert isinstance(events[-1], DoneEvent), events[-1]
    return events[-1]


def left_behind(engine: Engine) -> list[str]:
    """What a model still holds when all its requests have ended; one more step takes in what was under way."""
    found = runner(engine)
    found.step()
    scheduler, blocks = found._scheduler, found._blocks
    seats = found._lane._seats
    held = {
        "jobs": found._jobs, "choices": found._choices, "settings": found._settings, "places": scheduler._places,
        "order": scheduler._order, "new": scheduler._new, "promises": scheduler._promises, "flight": found._flight,
        "pages": blocks.used, "seats": [seat for seat in seats._seats.values() if not seat.over],
    }  # fmt: skip
    return [name for name, value in held.items() if value]
