"""Which waiting request starts next. One lane per loaded model, each with as many slots as the model runs at once.

Order in a lane: work class, then priority, then turns between owners, then arrival. Against starvation, a request that
has waited longer than `aging_ns` is lifted over all ranks, but at most every `elder_every`-th start goes to such a one:
so a lower rank always advances and never takes more than that share from a higher one. Pure: time is monotonic
nanoseconds, passed in.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from llmos.syscalls.errors import Busy, NotFound, OverQuota
from llmos.syscalls.types import Number, Reason

from .lane import Lane, Ticket

SECOND = 1_000_000_000
Found = Literal["queued", "running", "unknown"]


@dataclass(frozen=True, slots=True)
class Start:
    """Run this request now."""

    ticket: Ticket
    reason: Reason


@dataclass(frozen=True, slots=True)
class Expire:
    """The deadline passed. A waiting request has left the queue; a running one keeps its slot until `finish`."""

    ticket: Ticket
    running: bool
    reason: Reason


Decision = Start | Expire


class Dropped(NamedTuple):
    """The requests that a lane held when it ended."""

    waiting: list[Ticket]
    running: list[Ticket]


class Scheduler:
    """The queues of all lanes."""

    def __init__(self, limit: int = 10_000, aging_ns: int = 30 * SECOND, elder_every: int = 4) -> None:
        """`limit` is how many requests may wait in all lanes together; 0 means any number."""
        self._limit = limit
        self._aging_ns = aging_ns
        self._elder_every = elder_every
        self._lanes: dict[str, Lane] = {}
        self._waiting: dict[str, Ticket] = {}
        self._running: dict[str, Ticket] = {}
        self._per_session: Counter[str] = Counter()
        self._ready: dict[str, None] = {}
        """Lanes in which something may be able to start."""
        self._deadlines: list[tuple[int, str]] = []
        """A heap; it may name requests that have ended."""
        self._overdue: set[str] = set()
        """Running requests whose deadline passed."""

    def submit(self, ticket: Ticket, session_limit: int = 0) -> Reason:
        """Queue a request; `session_limit` is how many its session may have waiting, 0 any number.

        Raises:
            NotFound: no such lane.
            Busy: the queues are full.
            OverQuota: too many requests of this session wait.
            ValueError: a request with this id is here already.
        """
        lane = self._lane(ticket.lane)
        if ticket.id in self._waiting or ticket.id in self._running:
            raise ValueError(f"request {ticket.id} was submitted twice")
        if self._limit and len(self._waiting) >= self._limit:
            raise Busy(
                f"{len(self._waiting)} requests wait already, which is the limit; try again later",
                retry_after_ms=lane.retry_after_ms(),
            )
        if session_limit and self._per_session[ticket.session] >= session_limit:
            raise OverQuota(
                f"{session_limit} requests of this session wait already, which is its limit; wait for one to end",
                what="queued_requests",
                limit=session_limit,
                retry_after_ms=lane.retry_after_ms(),
            )
        lane.add(ticket)
        self._enqueue(ticket)
        self._watch(ticket)
        return _reason("request.queued", f"{ticket.id} waits in {lane.describe()}", lane)

    def set_lane(self, lane: str, slots: int, open: bool = True) -> None:
        """Make a lane or change it. A closed lane (its model is on the way) queues and starts nothing."""
        known = self._lanes.setdefault(lane, Lane(lane))
        known.slots, known.open = max(slots, 0), open
        self._ready[lane] = None

    def next(self, now: int) -> list[Decision]:
        """All that is due: first the deadlines that passed, then as many starts as there are free slots."""
        decisions: list[Decision] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, id = heapq.heappop(self._deadlines)
            decisions.extend(self._expire(deadline, id, now))
        for name in self._ready:
            lane = self._lanes[name]
            while (picked := lane.pick(now, self._aging_ns, self._elder_every)) is not None:
                ticket, rule = picked
                self._dequeue(ticket)
                self._running[ticket.id] = ticket
                waited = (now - ticket.arrived_ns) / SECOND
                text = f"{ticket.id} starts after {waited:.3f} s: {rule}"
                decisions.append(Start(ticket, _reason("request.start", text, lane, rule, waited_s=waited)))
        self._ready.clear()
        return decisions

    def finish(self, id: str, now: int) -> Ticket | None:
        """A running request has ended: its slot is free. None when it does not run here, as after `drop_lane`."""
        ticket = self._running.pop(id, None)
        if ticket is not None:
            self._overdue.discard(id)
            self._lanes[ticket.lane].release(id, now)
            self._ready[ticket.lane] = None
        return ticket

    def cancel(self, id: str) -> Found:
        """Take a waiting request out of the queue. A running one is left as it is: its driver ends it."""
        ticket = self._waiting.get(id)
        if ticket is not None:
            self._lanes[ticket.lane].remove(ticket)
            self._dequeue(ticket)
            return "queued"
        return "running" if id in self._running else "unknown"

    def requeue(self, id: str) -> bool:
        """Put a running request back at the very front of its lane, since its host died. False when it does not run.

        It may exceed the limits: it was admitted before.
        """
        ticket = self._running.pop(id, None)
        if ticket is None:
            return False
        self._lanes[ticket.lane].put_back(ticket)
        self._enqueue(ticket)
        if id in self._overdue:
            self._overdue.remove(id)
            self._watch(ticket)
        return True

    def drop_lane(self, lane: str) -> Dropped:
        """End a lane; its requests, in order of arrival. Nothing happens when there is no such lane."""
        ended = self._lanes.pop(lane, None)
        self._ready.pop(lane, None)
        if ended is None:
            return Dropped([], [])
        dropped = Dropped(ended.tickets(), [self._running.pop(id) for id in list(ended.running)])
        for ticket in dropped.waiting:
            self._dequeue(ticket)
        self._overdue.difference_update(ended.running)
        return dropped

    def position(self, id: str) -> int | None:
        """1 for the request that is first by rank and arrival in its lane; None when it does not wait."""
        ticket = self._waiting.get(id)
        return None if ticket is None else self._lanes[ticket.lane].position(ticket)

    def explain(self, id: str, now: int) -> Reason | None:
        """Why a request still waits; None when it does not."""
        ticket = self._waiting.get(id)
        if ticket is None:
            return None
        lane = self._lanes[ticket.lane]
        place, waited = lane.position(ticket), (now - ticket.arrived_ns) / SECOND
        text = f"{id} is number {place} in {lane.describe()}; it has waited {waited:.1f} s"
        rule = "work class, then priority, then turns between owners, then arrival"
        return _reason("request.waits", text, lane, rule, position=place, waited_s=waited)

    def waiting(self, lane: str | None = None) -> list[Ticket]:
        """The waiting requests of one lane in order of arrival, or of all lanes."""
        if lane is None:
            return list(self._waiting.values())
        return self._lanes[lane].tickets() if lane in self._lanes else []

    def running(self, lane: str | None = None) -> list[Ticket]:
        """The running requests of one lane in order of their start, or of all lanes."""
        return [ticket for ticket in self._running.values() if lane in (None, ticket.lane)]

    def queued(self, session: str) -> int:
        """How many requests of a session wait."""
        return self._per_session[session]

    def next_deadline(self) -> int | None:
        """When `next` has a deadline to act on; None when no request has one."""
        while self._deadlines and not self._known(self._deadlines[0][1]):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _expire(self, deadline: int, id: str, now: int) -> Iterator[Expire]:
        ticket = self._waiting.get(id) or self._running.get(id)
        if ticket is None or ticket.deadline_ns != deadline:
            return
        running = id in self._running
        if running:
            self._overdue.add(id)
        else:
            self._lanes[ticket.lane].remove(ticket)
            self._dequeue(ticket)
        waited, what = (now - ticket.arrived_ns) / SECOND, "ran" if running else "waited"
        text = f"the deadline of {id} passed after {waited:.3f} s while it {what}"
        reason = _reason("request.expired", text, self._lanes[ticket.lane], "deadline", waited_s=waited)
        yield Expire(ticket, running, reason)

    def _enqueue(self, ticket: Ticket) -> None:
        self._waiting[ticket.id] = ticket
        self._per_session[ticket.session] += 1
        self._ready[ticket.lane] = None

    def _dequeue(self, ticket: Ticket) -> None:
        del self._waiting[ticket.id]
        self._per_session[ticket.session] -= 1
        if not self._per_session[ticket.session]:
            del self._per_session[ticket.session]

    def _watch(self, ticket: Ticket) -> None:
        if ticket.deadline_ns is None:
            return
        heapq.heappush(self._deadlines, (ticket.deadline_ns, ticket.id))
        if len(self._deadlines) > 64 + 2 * (len(self._waiting) + len(self._running)):
            self._deadlines = [due for due in self._deadlines if self._known(due[1])]
            heapq.heapify(self._deadlines)

    def _known(self, id: str) -> bool:
        return id in self._waiting or id in self._running

    def _lane(self, name: str) -> Lane:
        try:
            return self._lanes[name]
        except KeyError:
            raise NotFound(f"no model {name!r} takes requests") from None


def _reason(code: str, text: str, lane: Lane, rule: str = "", **numbers: Number) -> Reason:
    counts: dict[str, Number] = {"waiting": len(lane), "running": len(lane.running), "slots": lane.slots}
    return Reason(code=code, text=text, numbers=counts | numbers, rule=rule)


__all__ = ["Decision", "Dropped", "Expire", "Found", "Scheduler", "Start", "Ticket"]
