"""The queue of one model: ranks of work class and priority, and in each rank fair shares between owners.

Every operation on one request is O(log n) or O(number of ranks); only `position` walks the queue.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass, field

from llmos.syscalls.types import WorkClass

from .arbiter.admission import Pace
from .arbiter.counting import less, more
from .arbiter.fairness import WEIGHT, Account, Fairness, Rank, Turns

CLASS_RANK = {WorkClass.INTERACTIVE: 0, WorkClass.BATCH: 1, WorkClass.BACKGROUND: 2}

_RANKS = 64
"""When so many ranks were seen, those without requests are forgotten."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One request in the scheduler's eyes. `owner` (user and tenant) is whom shares are between."""

    id: str
    lane: str
    session: str
    owner: str
    arrived_ns: int
    work_class: WorkClass = WorkClass.INTERACTIVE
    priority: int = 0
    deadline_ns: int | None = None
    weights: tuple[int, int] = (WEIGHT, WEIGHT)
    """Of its user among users, and of its tenant among the user's tenants."""
    rank: Rank = field(init=False, compare=False, repr=False, default=(0, 0))
    user: str = field(init=False, compare=False, repr=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", (CLASS_RANK[self.work_class], -self.priority))
        object.__setattr__(self, "user", self.owner.partition("/")[0])


class Run:
    """A running request: when it started, and what its owner was charged for it."""

    __slots__ = ("charged_ns", "since", "spent_ns", "ticket")

    def __init__(self, ticket: Ticket, since: int) -> None:
        self.ticket = ticket
        self.since = since
        self.charged_ns = 0
        self.spent_ns = 0
        """Device time as its driver reported it."""


class Lane:
    """Waiting and running requests of one model."""

    def __init__(self, name: str, fairness: Fairness | None = None, device: str = "") -> None:
        """`fairness` has the accounts of its device."""
        self.name = name
        self.device = device
        self.slots = 0
        self.extra = 0
        """So many may run beyond the slots while lower work classes fill these."""
        self.open = False
        self.running: dict[str, Run] = {}
        self.fairness = Fairness() if fairness is None else fairness
        self._front: OrderedDict[str, Ticket] = OrderedDict()
        """Requests put back after a crash: they go before all others."""
        self._arrivals: OrderedDict[str, Ticket] = OrderedDict()
        """All other waiting requests."""
        self._ranks: list[Rank] = []
        self._turns: dict[Rank, Turns[Ticket]] = {}
        """The same requests by rank; of ranks without requests some are kept."""
        self._accounts: dict[str, Account] = {}
        """Of all requests, waiting or running."""
        self._before: dict[str, Run] = {}
        """What those put back had been charged."""
        self.users: list[dict[str, int]] = [{}, {}, {}]
        """By work class the users of requests that wait or run, with their number."""
        self.weights: dict[str, int] = {}
        """Of these users."""
        self._classes = [0, 0, 0]
        """How many run, by work class."""
        self._since_elder = 0
        self._cost_ns = 0
        self.pace = Pace()

    def __len__(self) -> int:
        return len(self._front) + len(self._arrivals)

    def tickets(self) -> list[Ticket]:
        """All waiting requests: those put back, then the others in order of arrival."""
        return [*self._front.values(), *self._arrivals.values()]

    def add(self, ticket: Ticket) -> None:
        """Append a request."""
        rank = ticket.rank
        self._arrivals[ticket.id] = ticket
        account = self._accounts[ticket.id] = self.fairness.enter(rank, ticket.owner, ticket.weights)
        turns = self._turns.get(rank)
        if turns is None:
            if len(self._turns) >= _RANKS:
                self._turns = {rank: turns for rank, turns in self._turns.items() if turns}
            turns = self._turns[rank] = Turns()
        if not turns:
            insort(self._ranks, rank)
        turns.add(account, ticket.id, ticket)
        user = ticket.user
        first = more(self.users[rank[0]], user) == 1
        self.fairness.changes += first or self.weights.get(user) != ticket.weights[0]
        self.weights[user] = ticket.weights[0]

    def put_back(self, ticket: Ticket) -> None:
        """Return a running request to the front, behind others put back before. It is not charged again."""
        self._before[ticket.id] = self.running.pop(ticket.id)
        self._classes[ticket.rank[0]] -= 1
        self._front[ticket.id] = ticket

    def remove(self, ticket: Ticket) -> None:
        """Take a waiting request out, wherever it stands, for good."""
        if self._front.pop(ticket.id, None) is None:
            self._take(ticket)
        before = self._before.pop(ticket.id, None)
        if before is not None:
            self._accounts[ticket.id].charge(before.spent_ns - before.charged_ns)
        self._leave(ticket)

    def _take(self, ticket: Ticket) -> None:
        """Take an arrival out of its rank; its account goes on."""
        del self._arrivals[ticket.id]
        rank = ticket.rank
        turns = self._turns[rank]
        turns.remove(self._accounts[ticket.id], ticket.id)
        if not turns:
            self._ranks.remove(rank)

    def _leave(self, ticket: Ticket) -> None:
        self.fairness.leave(ticket.rank, self._accounts.pop(ticket.id))
        users, user = self.users[ticket.rank[0]], ticket.user
        if not less(users, user):
            self.fairness.changes += 1
            if not any(user in each for each in self.users):
                del self.weights[user]

    def release(self, id: str, now: int) -> None:
        """A running request ended: its slot is free, its charge is corrected, and its time counts for estimates.

        Where its driver reported no device time, its share of the time it ran is taken instead.
        """
        run = self.running.pop(id)
        self._classes[run.ticket.rank[0]] -= 1
        took = now - run.since
        self.pace.measured(run.ticket.rank[0], took)
        spent = run.spent_ns or took // (len(self.running) + 1)
        self._cost_ns += (spent - self._cost_ns) // 8 if self._cost_ns else spent
        self._accounts[id].charge(spent - run.charged_ns)
        self._leave(run.ticket)

    def spent(self, id: str, ns: int) -> None:
        """The driver reported that a running request took so much more device time."""
        run = self.running.get(id)
        if run is None:
            return
        run.spent_ns += ns
        if run.spent_ns > run.charged_ns:
            self._accounts[id].charge(run.spent_ns - run.charged_ns)
            run.charged_ns = run.spent_ns

    def pick(self, now: int, aging_ns: int, elder_every: int) -> tuple[Ticket, str] | None:
        """Move the request that is next to the running ones, and say by which rule; None when nothing can start."""
        if not self.open:
            return None
        free = len(self.running) < self.slots
        ticket = next((one for one in self._front.values() if free or self._may_exceed(one.rank)), None)
        if ticket is not None:
            del self._front[ticket.id]
            rule = "it ran before and its driver ended"
        elif self._ranks and (free or self._may_exceed(self._ranks[0])):
            ticket, rule = self._choose(now, aging_ns, elder_every)
        else:
            return None
        if not free:
            rule += f"; beyond {self.slots} slots, which lower work classes fill"
        self._begin(ticket, now)
        return ticket, rule

    def _may_exceed(self, rank: Rank) -> bool:
        """Whether a class may start although the slots are full: lower ones in them do not stand in its way."""
        own = sum(self._classes[: rank[0] + 1])
        return own < self.slots and len(self.running) < self.slots + self.extra

    def _may_be_lifted(self, rank: Rank) -> bool:
        """Whether who waited too long may start: lower classes together never take more than the slots."""
        if len(self.running) < self.slots or not rank[0]:
            return True
        return sum(self._classes[1:]) < self.slots

    def _choose(self, now: int, aging_ns: int, elder_every: int) -> tuple[Ticket, str]:
        """The next arrival: at the latest every `elder_every`-th time it is the one who waited too long."""
        eldest = next(iter(self._arrivals.values()))
        first = self._turns[self._ranks[0]].first()
        rule = "first by work class, priority, share of its owner and arrival"
        aged = now - eldest.arrived_ns > aging_ns and self._may_be_lifted(eldest.rank)
        if aged and self._since_elder >= elder_every - 1 and first is not eldest:
            first = eldest
            rule = f"it waited longest, and one start in {elder_every} goes to who waited too long"
        self._since_elder = 0 if first is eldest else self._since_elder + 1
        turns = self._turns[first.rank]
        self._take(first)
        turns.took(self._accounts[first.id])
        return first, rule

    def _begin(self, ticket: Ticket, now: int) -> None:
        """Charge a request that starts with what such requests cost here, unless it ran before."""
        run = self._before.pop(ticket.id, None)
        if run is None:
            run = Run(ticket, now)
            account = self._accounts[ticket.id]
            account.started()
            run.charged_ns = self._cost_ns
            account.charge(run.charged_ns)
        run.since = now
        self.running[ticket.id] = run
        self._classes[ticket.rank[0]] += 1

    def close(self) -> None:
        """The lane ends with all it holds: what was charged too much is given back."""
        for ticket in self.tickets():
            self.remove(ticket)
        for id in list(self.running):
            self.withdraw(id)

    def demand(self) -> list[dict[str, int]]:
        """By work class the users with requests here, with their weights."""
        return [{user: self.weights[user] for user in users} for users in self.users]

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

    def ahead_ns(self, id: str) -> int:
        """By how much the owner of a request was given more device time than who is next at its rank."""
        return self._accounts[id].ahead_ns

    def wait_ns(self, ticket: Ticket) -> int:
        """How long a request that arrives now would wait, as far as what runs and waits here tells it."""
        if len(self.running) < self.slots or self._may_exceed(ticket.rank):
            return 0
        ahead, rank = [0, 0, 0], ticket.rank
        for one in self._front.values():
            ahead[one.rank[0]] += 1
        for other in self._ranks[: bisect_right(self._ranks, rank)]:
            turns = self._turns[other]
            ahead[other[0]] += turns.size if other < rank else turns.ahead_of_next(ticket.user)
        return self.pace.wait_ns(ahead, self.slots)

    def withdraw(self, id: str) -> None:
        """Take back a start, as if the request had been removed while it waited."""
        run = self.running.pop(id)
        self._classes[run.ticket.rank[0]] -= 1
        self._accounts[id].charge(run.spent_ns - run.charged_ns)
        self._leave(run.ticket)

    def describe(self) -> str:
        """The lane in a few words."""
        state = "" if self.open else ", which is closed for now"
        return f"{self.name} ({len(self)} waiting, {len(self.running)} of {self.slots} running{state})"


__all__ = ["CLASS_RANK", "Lane", "Rank", "Run", "Ticket"]
