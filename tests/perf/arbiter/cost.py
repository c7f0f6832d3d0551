"""What the pure cores of the arbiter cost a request: queued, started, accounted, finished, with a thousand others."""

from __future__ import annotations

import time

from llmos.kernel.residency import Event, Residency
from llmos.kernel.scheduler import Scheduler, Start, Ticket
from llmos.syscalls.types import WorkClass

LANES, OWNERS, WAITING, COUNT, SLOTS = 8, 16, 1000, 5000, 4
CLASSES = list(WorkClass)


def request_cost() -> float:
    """Seconds of processor time of one request, with a thousand waiting in eight lanes."""
    scheduler, residency = Scheduler(), Residency()
    for lane in range(LANES):
        name = f"m-{lane}"
        residency.add(name, "cpu0", 0)
        residency.event(name, Event.LOAD, 0)
        residency.event(name, Event.LOADED, 0)
        scheduler.set_lane(name, SLOTS)
    now = 0
    for number in range(WAITING):
        scheduler.submit(_ticket(number, now))
    running = _started(scheduler, residency, now)
    began = time.process_time()
    for number in range(WAITING, WAITING + COUNT):
        now += 1_000_000
        scheduler.submit(_ticket(number, now))
        done = running.pop(0)
        scheduler.finish(done.id, now)
        residency.end(done.lane, now)
        running += _started(scheduler, residency, now)
    return (time.process_time() - began) / COUNT


def _started(scheduler: Scheduler, residency: Residency, now: int) -> list[Ticket]:
    started = [decision.ticket for decision in scheduler.next(now) if isinstance(decision, Start)]
    for ticket in started:
        residency.begin(ticket.lane, now)
    return started


def _ticket(number: int, now: int) -> Ticket:
    owner = f"u{number % OWNERS}"
    work_class = CLASSES[number % len(CLASSES)]
    return Ticket(f"r{number}", f"m-{number % LANES}", f"s-{owner}", owner, now, work_class, priority=number % 3)
