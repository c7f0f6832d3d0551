"""The queue of one model: ranks of work class and priority, and in each rank turns between owners.

Every operation on one request is O(1) or O(number of ranks); only `position` walks the queue.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from dataclasses import dataclass

from llmos.syscalls.types import WorkClass

CLASS_RANK = {WorkClass.INTERACTIVE: 0, WorkClass.BATCH: 1, WorkClass.BACKGROUND: 2}
Rank = tuple[int, int]
"""(work class, negated priority): smaller goes first."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One request in the scheduler's eyes. `owner` (user and tenant) is whom turns are taken between."""

    id: str
    lane: str
    session: str
    owner: str
    arrived_ns: int
    work_class: WorkClass = WorkClass.INTERACTIVE
    priority: int = 0
    deadline_ns: int | None = None

    @property
    def rank(self) -> Rank:
        return CLASS_RANK[self.work_class], -self.priority


class Lane:
    """Waiting and running requests of one model."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.slots = 0
        self.open = False
        self.running: dict[str, int] = {}
        """When each running request started."""
        self._front: OrderedDict[str, Ticket] = OrderedDict()
        """Requests put back after a crash: they go before all others."""
        self._arrivals: OrderedDict[str, Ticket] = OrderedDict()
        """All other waiting requests."""
        self._ranks: list[Rank] = []
        self._owners: dict[Rank, OrderedDict[str, OrderedDict[str, Ticket]]] = {}
        """The same requests by rank and owner; the owner whose turn it is stands first."""
        self._since_elder = 0
        self._service_ns = 0

    def __len__(self) -> int:
        return len(self._front) + len(self._arrivals)

    def tickets(self) -> list[Ticket]:
        """All waiting requests: those put back, then the others in order of arrival."""
        return [*self._front.values(), *self._arrivals.values()]

    def add(self, ticket: Ticket) -> None:
        """Append a request."""
        self._arrivals[ticket.id] = ticket
        owners = self._owners.get(ticket.rank)
        if owners is None:
            owners = self._owners[ticket.rank] = OrderedDict()
            insort(self._ranks, ticket.rank)
        owners.setdefault(ticket.owner, OrderedDict())[ticket.id] = ticket

    def put_back(self, ticket: Ticket) -> None:
        """Return a running request to the front, behind others put back before."""
        del self.running[ticket.id]
        self._front[ticket.id] = ticket

    def remove(self, ticket: Ticket) -> None:
        """Take a waiting request out, wherever it stands."""
        if self._front.pop(ticket.id, None) is not None:
            return
        del self._arrivals[ticket.id]
        owners = self._owners[ticket.rank]
        mine = owners[ticket.owner]
        del mine[ticket.id]
        if not mine:
            del owners[ticket.owner]
        if not owners:
            del self._owners[ticket.rank]
            self._ranks.remove(ticket.rank)

    def release(self, id: str, now: int) -> None:
        """A running request ended: its slot is free, and its time counts for the estimate of waiting."""
        took = now - self.running.pop(id)
        self._service_ns += (took - self._service_ns) // 8 if self._service_ns else took

    def pick(self, now: int, aging_ns: int, elder_every: int) -> tuple[Ticket, str] | None:
        """Move the request that is next to the running ones, and say by which rule; None when nothing can start."""
        if not self.open or len(self.running) >= self.slots or not len(self):
            return None
        if self._front:
            _, ticket = self._front.popitem(last=False)
            rule = "it ran before and its driver ended"
        else:
            ticket, rule = self._choose(now, aging_ns, elder_every)
        self.running[ticket.id] = now
        return ticket, rule

    def _choose(self, now: int, aging_ns: int, elder_every: int) -> tuple[Ticket, str]:
        eldest = next(iter(self._arrivals.values()))
        owners = self._owners[self._ranks[0]]
        first = next(iter(next(iter(owners.values())).values()))
        rule = "first by work class, priority, turn of its owner and arrival"
        if now - eldest.arrived_ns > aging_ns and self._since_elder >= elder_every - 1 and first is not eldest:
            first, owners = eldest, self._owners[eldest.rank]
            rule = f"it waited longest, and one start in {elder_every} goes to who waited too long"
        self._since_elder = 0 if first is eldest else self._since_elder + 1
        self.remove(first)
        if first.owner in owners:
            owners.move_to_end(first.owner)
        return first, rule

    def position(self, ticket: Ticket) -> int:
        """1 for the first by rank and arrival; those put back are first of all."""
        if ticket.id in self._front:
            return list(self._front).index(ticket.id) + 1
        place = len(self._front) + 1
        arrived = False
        for other in self._arrivals.values():
            arrived = arrived or other.id == ticket.id
            place += other.rank < ticket.rank or (other.rank == ticket.rank and not arrived)
        return place

    def retry_after_ms(self) -> int:
        """A guess of when a place in the queue is free, from how long requests took: 100 ms to a minute."""
        guess = self._service_ns // max(self.slots, 1) // 1_000_000
        return min(max(guess, 100), 60_000)

    def describe(self) -> str:
        """The lane in a few words."""
        state = "" if self.open else ", which is closed for now"
        return f"{self.name} ({len(self)} waiting, {len(self.running)} of {self.slots} running{state})"
