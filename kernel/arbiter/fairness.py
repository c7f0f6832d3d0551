"""Weighted fair sharing of a device's time: between users, and between the tenants of one user.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) in two levels. Each account has a tag, the device time it
was charged divided by its weight; who waits with the smallest tag is next. An account that becomes active starts at
the virtual time of its level, so that nobody is paid for the time in which he wanted nothing, nor punished for having
used a device that nobody else wanted. What a request costs is known only when it has ended: an estimate is charged at
its start and corrected by what it spent. All lanes of a device share the accounts; each rank of work class and
priority has its own. Pure: device time is passed in, in nanoseconds.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from itertools import count
from typing import Generic, TypeVar

from .counting import less, more

T = TypeVar("T")
Rank = tuple[int, int]
"""(work class, negated priority): smaller goes first."""

WEIGHT = 100
"""The weight of an account that policy does not name."""
_SWEEP = 64
"""So many accounts are kept at a level before idle ones are looked for."""


class Account:
    """One user at one rank of a device, or one tenant of it; the one above all users is the rank's own."""

    __slots__ = ("_sweep_at", "above", "active", "children", "clock", "name", "orders", "tag", "weight")

    def __init__(self, name: str, above: Account | None, weight: int = WEIGHT) -> None:
        self.name = name
        self.above = above
        self.weight = weight
        self.tag: int = 0 if above is None else above.clock
        """Device time charged so far, by weight: nanoseconds for an account of the weight 100."""
        self.active = 0
        """Requests of it that wait or run."""
        self.clock: int = 0
        """The virtual time of the level below: the largest tag with which a request was started there."""
        self.children: dict[str, Account] = {}
        self.orders: dict[Order, None] = {}
        """Where it stands in line."""
        self._sweep_at = _SWEEP

    def child(self, name: str, weight: int) -> Account:
        """The account of that name at the level below, made or brought up to the present when it was idle."""
        found = self.children.get(name)
        if found is None:
            if len(self.children) >= self._sweep_at:
                self._sweep()
            found = self.children[name] = Account(name, self, weight)
        elif not found.active:
            found.tag = max(found.tag, self.clock)
        found.weight = weight
        return found

    def _sweep(self) -> None:
        """Forget who is idle and owes nothing: he would come back with the same tag."""
        kept = {name: one for name, one in self.children.items() if one.active or one.tag > self.clock}
        self.children, self._sweep_at = kept, max(_SWEEP, 2 * len(kept))

    def charge(self, ns: int) -> None:
        """Take device time from it and from its user; a negative number gives it back."""
        account = self
        while account.above is not None:
            account.tag += ns * WEIGHT // account.weight
            if ns < 0:
                for order in account.orders:
                    order.moved(account)
            account = account.above

    def started(self) -> None:
        """A request of it starts: the virtual times move on to its tag, before it is charged."""
        account = self
        while account.above is not None:
            account.above.clock = max(account.above.clock, account.tag)
            account = account.above

    @property
    def ahead_ns(self) -> int:
        """By how much its user was given more than the one who was next last, at the weight 100."""
        user = self if self.above is None or self.above.above is None else self.above
        return 0 if user.above is None else user.tag - user.above.clock


class Fairness:
    """The accounts of one device."""

    def __init__(self) -> None:
        self._ranks: dict[Rank, Account] = {}
        self.changes = 0
        """How often it has changed who has work on the device's models."""

    def enter(self, rank: Rank, owner: str, weights: tuple[int, int] = (WEIGHT, WEIGHT)) -> Account:
        """The account of an owner, `uid` or `uid/tenant`, which has one more request now.

        `weights` are those of the user among users and of the tenant among the user's tenants.
        """
        top = self._ranks.get(rank)
        if top is None:
            top = self._ranks[rank] = Account("", None)
        user, _, tenant = owner.partition("/")
        mine = top.child(user, weights[0])
        account = mine.child(tenant, weights[1])
        account.active += 1
        mine.active += 1
        top.active += 1
        return account

    def leave(self, rank: Rank, account: Account) -> None:
        """One of its requests has ended. Where nobody is active any more, all start anew, with nothing owed."""
        user = account.above
        top = user.above if user is not None else None
        assert user is not None and top is not None
        account.active -= 1
        user.active -= 1
        top.active -= 1
        if not top.active:
            del self._ranks[rank]
        elif not user.active:
            user.children.clear()
            user.clock = 0

    def __len__(self) -> int:
        """How many accounts are kept, of users and tenants."""
        users = [user for top in self._ranks.values() for user in top.children.values()]
        return len(users) + sum(len(user.children) for user in users)


class Order:
    """Accounts in line, the smallest tag first, equal ones in turn. A heap whose outdated entries are passed over."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Account]] = []
        self._entry: dict[Account, int] = {}
        """Which entry of the heap counts for an account."""
        self._number = count()

    def __len__(self) -> int:
        return len(self._entry)

    def add(self, account: Account) -> None:
        """Put it in line, behind those with the same tag."""
        account.orders[self] = None
        self.moved(account)

    def remove(self, account: Account) -> None:
        """Take it out of the line."""
        del self._entry[account]
        del account.orders[self]

    def moved(self, account: Account) -> None:
        """Its tag became smaller, or it had its turn: it goes behind those with the same tag."""
        if len(self._heap) > 2 * len(self._entry) + 16:
            self._heap = [entry for entry in self._heap if self._entry.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)
        number = self._entry[account] = next(self._number)
        heapq.heappush(self._heap, (account.tag, number, account))

    def first(self) -> Account:
        """Who is next. A tag that grew meanwhile is seen here."""
        while True:
            tag, number, account = self._heap[0]
            if self._entry.get(account) != number:
                heapq.heappop(self._heap)
            elif account.tag != tag:
                heapq.heapreplace(self._heap, (account.tag, number, account))
            else:
                return account


class Turns(Generic[T]):
    """What waits in one lane at one rank, by account. Everything here is O(log of the number of accounts)."""

    def __init__(self) -> None:
        self._users = Order()
        self._tenants: dict[Account, Order] = {}
        self._items: dict[Account, OrderedDict[str, T]] = {}
        self._counts: dict[str, int] = {}
        """Items by user."""
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    def ahead_of_next(self, user: str) -> int:
        """How many of the items would have their turn before one more of that user, as if all cost the same."""
        mine = self._counts.get(user, 0)
        others = len(self._counts) - (mine > 0)
        return min(self.size, mine + others * (mine + 1))

    def add(self, account: Account, id: str, item: T) -> None:
        """Append an item to its account."""
        items = self._items.get(account)
        if items is None:
            items = self._items[account] = OrderedDict()
            user = _user(account)
            tenants = self._tenants.get(user)
            if tenants is None:
                tenants = self._tenants[user] = Order()
                self._users.add(user)
            tenants.add(account)
        items[id] = item
        more(self._counts, _user(account).name)
        self.size += 1

    def remove(self, account: Account, id: str) -> None:
        """Take an item out."""
        items, user = self._items[account], _user(account)
        del items[id]
        self.size -= 1
        less(self._counts, user.name)
        if items:
            return
        tenants = self._tenants[user]
        del self._items[account]
        tenants.remove(account)
        if not tenants:
            del self._tenants[user]
            self._users.remove(user)

    def first(self) -> T:
        """The oldest item of the account that is next."""
        account = self._tenants[self._users.first()].first()
        return next(iter(self._items[account].values()))

    def took(self, account: Account) -> None:
        """The account had its turn: among equals it is last now."""
        user = _user(account)
        if user in self._tenants:
            self._users.moved(user)
        if account in self._items:
            self._tenants[user].moved(account)


def _user(account: Account) -> Account:
    assert account.above is not None
    return account.above
