"""Which waiting request starts next. One lane per loaded model, each with as many slots as the model runs at once.

Order in a lane: work class, then priority, then fair shares of the device's time between owners, then arrival. Against
starvation, a request that has waited longer than `aging_ns` is lifted over all ranks, but at most every
`elder_every`-th start goes to such a one: so a lower rank always advances and never takes more than that share from a
higher one. Where the device can park work, a higher work class also starts beyond the slots that lower ones fill.
Pure: time is monotonic nanoseconds, passed in.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from msgspec import to_builtins

from llmos.syscalls.errors import Busy, NotFound, OverQuota
from llmos.syscalls.types import Number, Reason

from .arbiter.admission import hopeless, refusal
from .arbiter.counting import less, more
from .arbiter.fairness import Fairness
from .lane import Lane, Ticket

SECOND = 1_000_000_000
GREED = 8
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

    def __init__(
        self, limit: int = 10_000, aging_ns: int = 30 * SECOND, elder_every: int = 4, queue_ns: int = 0
    ) -> None:
        """`limit` is how many requests may wait in all lanes together, and `queue_ns` how long; 0 means no limit."""
        self.set_limits(limit, aging_ns, queue_ns)
        self._elder_every = elder_every
        self._lanes: dict[str, Lane] = {}
        self._devices: dict[str, Fairness] = {}
        self._waiting: dict[str, Ticket] = {}
        self._running: dict[str, Ticket] = {}
        self._per_session: dict[str, int] = {}
        self._per_user: dict[str, int] = {}
        self._ready: dict[str, None] = {}
        """Lanes in which something may be able to start."""
        self._deadlines: list[tuple[int, str]] = []
        """A heap; it may name requests that have ended."""
        self._overdue: set[str] = set()
        """Running requests whose deadline passed."""

    def set_limits(self, limit: int, aging_ns: int, queue_ns: int) -> None:
        """Other limits from now on; what waits already goes on waiting."""
        self._limit = limit
        self._aging_ns = aging_ns
        self._queue_ns = queue_ns

    def submit(self, ticket: Ticket, session_limit: int = 0, now: int | None = None) -> int:
        """Queue a request, and say how long it is likely to wait, in nanoseconds.

        `session_limit` is how many its session may have waiting, 0 any number; `now` is the time when that is later
        than its arrival.

        Raises:
            NotFound: no such lane.
            Busy: the queues are full, or it would wait longer than its deadline or policy allows.
            OverQuota: too many requests of this session wait.
            ValueError: a request with this id is here already.
        """
        lane = self._lane(ticket.lane)
        if ticket.id in self._waiting or ticket.id in self._running:
            raise ValueError(f"request {ticket.id} was submitted twice")
        self._check_room(lane, ticket.user)
        if session_limit and self._per_session.get(ticket.session, 0) >= session_limit:
            raise OverQuota(
                f"{session_limit} requests of this session wait already, which is its limit; wait for one to end",
                what="queued_requests",
                limit=session_limit,
                retry_after_ms=lane.pace.retry_after_ms(lane.slots),
            )
        wait_ns = lane.wait_ns(ticket) if lane.open else 0
        if wait_ns:
            self._check_wait(lane, ticket, wait_ns, ticket.arrived_ns if now is None else now)
        lane.add(ticket)
        self._enqueue(ticket)
        self._watch(ticket)
        return wait_ns

    def queued_reason(self, id: str, wait_ns: int) -> Reason | None:
        """What is said of a request that did not start at once; None when it did."""
        ticket = self._waiting.get(id)
        if ticket is None:
            return None
        lane = self._lanes[ticket.lane]
        text = f"{id} waits in {lane.describe()}, about {wait_ns / SECOND:.1f} s as it seems"
        return _reason("request.queued", text, lane, predicted_wait_s=wait_ns / SECOND)

    def _check_room(self, lane: Lane, user: str) -> None:
        """The queue is bounded, and one user leaves room for others: he may have at most `GREED` times as many
        waiting as there is room left (dynamic thresholds, Choudhury and Hahne 1998)."""
        if not self._limit:
            return
        room, mine = self._limit - len(self._waiting), self._per_user.get(user, 0)
        if room > 0 and mine < GREED * room:
            return
        retry_after_ms = lane.pace.retry_after_ms(lane.slots)
        numbers: dict[str, Number] = {"limit": self._limit, "room": max(room, 0), "of_user": mine}
        if room > 0:
            text = f"{mine} requests of user {user} wait; the room for {room} more is kept for other users"
        else:
            text = f"{len(self._waiting)} requests wait already, which is the limit; try again later"
        reason = _reason("request.refused", text, lane, "limits.queued_requests", **numbers)
        raise Busy(text, retry_after_ms=retry_after_ms, reasons=[to_builtins(reason)])

    def _check_wait(self, lane: Lane, ticket: Ticket, wait_ns: int, now: int) -> None:
        left = None if ticket.deadline_ns is None else ticket.deadline_ns - now
        found = refusal(lane.pace, ticket.rank[0], wait_ns, left, self._queue_ns)
        if found is None:
            return
        retry = lane.pace.come_again_ms(now, found.short_ns, lane.slots)
        numbers = {**found.numbers, "retry_after_ms": retry}
        reason = _reason("request.refused", f"{ticket.id} is refused: {found.text}", lane, found.rule, **numbers)
        text = f"{lane.name} is overloaded: {found.text}; try again in {retry} ms"
        raise Busy(text, retry_after_ms=retry, reasons=[to_builtins(reason)])

    def set_lane(self, lane: str, slots: int, open: bool = True, device: str = "", extra: int = 0) -> None:
        """Make a lane or change it. A closed lane (its model is on the way) queues and starts nothing.

        Lanes of one `device` share its accounts; a lane keeps the device it was made with. Up to `extra` requests start
        beyond the slots while lower work classes fill these.
        """
        known = self._lanes.get(lane)
        if known is None:
            known = self._lanes[lane] = Lane(lane, self._devices.setdefault(device, Fairness()), device)
        known.slots, known.open, known.extra = max(slots, 0), open, extra
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
                if self._hopeless(lane, ticket, now):
                    decisions.append(self._give_up(lane, ticket, now))
                    continue
                self._running[ticket.id] = ticket
                waited = (now - ticket.arrived_ns) / SECOND
                text = f"{ticket.id} starts after {waited:.3f} s: {rule}"
                ahead = lane.ahead_ns(ticket.id) / SECOND
                reason = _reason("request.start", text, lane, rule, waited_s=waited, owner_ahead_s=ahead)
                decisions.append(Start(ticket, reason))
        self._ready.clear()
        return decisions

    def _hopeless(self, lane: Lane, ticket: Ticket, now: int) -> bool:
        """While others wait, what would hardly meet its deadline does not take their time."""
        left = None if ticket.deadline_ns is None else ticket.deadline_ns - now
        return len(lane) > 0 and hopeless(lane.pace, ticket.rank[0], left)

    def _give_up(self, lane: Lane, ticket: Ticket, now: int) -> Expire:
        assert ticket.deadline_ns is not None
        lane.withdraw(ticket.id)
        least, left = lane.pace.least_ns(ticket.rank[0]) / SECOND, (ticket.deadline_ns - now) / SECOND
        text = f"{ticket.id} would miss its deadline: it is due in {left:.1f} s, and requests run {least:.1f} s or more"
        waited = (now - ticket.arrived_ns) / SECOND
        rule = "what cannot be answered in time leaves the slot to others that wait"
        numbers = {"waited_s": waited, "left_s": left, "shortest_run_s": least}
        return Expire(ticket, False, _reason("request.hopeless", text, lane, rule, **numbers))

    def finish(self, id: str, now: int) -> Ticket | None:
        """A running request has ended: its slot is free. None when it does not run here, as after `drop_lane`."""
        ticket = self._running.pop(id, None)
        if ticket is not None:
            self._overdue.discard(id)
            self._lanes[ticket.lane].release(id, now)
            self._ready[ticket.lane] = None
        return ticket

    def spent(self, id: str, device_ns: int) -> None:
        """A driver reported device time of a running request; of any other it is nobody's any more."""
        ticket = self._running.get(id)
        if ticket is not None:
            self._lanes[ticket.lane].spent(id, device_ns)

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
        dropped = Dropped(ended.tickets(), [self._running.pop(id) for id in ended.running])
        ended.close()
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
        ahead = lane.ahead_ns(id) / SECOND
        text = f"{id} is number {place} in {lane.describe()}; it has waited {waited:.1f} s"
        rule = "work class, then priority, then fair shares between owners, then arrival"
        return _reason("request.waits", text, lane, rule, position=place, waited_s=waited, owner_ahead_s=ahead)

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
        return self._per_session.get(session, 0)

    @property
    def changes(self) -> int:
        """How often it has changed who has work on which device."""
        return sum(fairness.changes for fairness in self._devices.values())

    def busy(self) -> list[Lane]:
        """The lanes with requests, waiting or running."""
        return [lane for lane in self._lanes.values() if lane.weights]

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
        more(self._per_session, ticket.session)
        more(self._per_user, ticket.user)
        self._ready[ticket.lane] = None

    def _dequeue(self, ticket: Ticket) -> None:
        del self._waiting[ticket.id]
        less(self._per_session, ticket.session)
        less(self._per_user, ticket.user)

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
