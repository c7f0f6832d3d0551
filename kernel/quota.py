"""Quotas of users, tenants and programs at work: who may begin a request now, who waits for it, and who is refused."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import to_builtins

from llmos.syscalls.errors import Busy, OverQuota
from llmos.syscalls.events import Spent
from llmos.syscalls.types import Limits, Number, Reason

from .arbiter.fairness import WEIGHT
from .arbiter.quotas import Over, Quota, first_over, relevant
from .ledger import size_text
from .objects import LeaseObject
from .pending import Future, Timer

if TYPE_CHECKING:
    from .core import Kernel
    from .requests import Request
    from .session import Session

_SWEEP = 256


@dataclass(frozen=True, slots=True)
class Standing:
    """What policy says of a session's requests."""

    chain: tuple[Quota, ...]
    """The quotas that each of them counts against: the user's, the tenant's, the program's."""
    waits: bool
    """Whether a request over quota waits instead of being refused."""
    weights: tuple[int, int]


@dataclass(slots=True)
class Line:
    """Requests that wait for the same quotas, the first of them with a timer."""

    turns: OrderedDict[str, Future[None]] = field(default_factory=OrderedDict)
    timer: Timer | None = None


class QuotaService:
    """All quotas."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._quotas: dict[str, Quota] = {}
        self._sweep_at = _SWEEP
        self._standings: dict[str, Standing] = {}
        """By session."""
        self._under_way: dict[str, tuple[Quota, ...]] = {}
        """By request."""
        self._lines: dict[tuple[Quota, ...], Line] = {}
        self._waiting = 0

    # ---- what counts for a session

    def standing(self, session: Session) -> Standing:
        """What policy says of a session, found out at its first request."""
        known = self._standings.get(session.id)
        if known is None:
            known = self._standings[session.id] = self._find(session)
        return known

    def _find(self, session: Session) -> Standing:
        uid = session.peer.uid
        owner = self._kernel.config.policy(uid, session.tenant)
        chain, before = [], (0,) * len(relevant(session.limits))
        for who, limits in self._levels(session):
            if relevant(limits) != before:  # the same limits as those of the level above never bind
                before = relevant(limits)
                chain.append(self._quota(who, limits))
        waits = owner is not None and owner.over_quota == "wait"
        return Standing(tuple(chain), waits, self._weights(uid, session.tenant))

    def _levels(self, session: Session) -> list[tuple[str, Limits]]:
        """Who has which limits that a session's requests count against, from the widest to the narrowest."""
        config, uid = self._kernel.config, session.peer.uid
        user, owner = config.policy(uid), config.policy(uid, session.tenant)
        named = f"tenant {session.tenant} of user {uid}" if session.tenant else f"user {uid}"
        return [
            (f"user {uid}", user.limits if user is not None else Limits()),
            (named, owner.limits if owner is not None else Limits()),
            (f"program {session.program} of {named}", session.limits),
        ]

    def reload(self) -> None:
        """Policy was read again: other limits of users and tenants count from now on, for what waits too."""
        now, sessions = self._kernel.runner.clock(), self._kernel.sessions.by_id.values()
        for who, limits in [level for session in sessions for level in self._levels(session)]:
            if who in self._quotas:
                self._quotas[who].set_limits(limits, now)
        self._standings.clear()
        for waiting in list(self._lines):
            self._look(waiting)

    def _weights(self, uid: int, tenant: str) -> tuple[int, int]:
        user = self._kernel.config.policy(uid)
        weight = user.limits.weight if user is not None else 0
        return weight or WEIGHT, self._kernel.config.policies.tenant_weight(uid, tenant) or WEIGHT

    def _quota(self, who: str, limits: Limits) -> Quota:
        now = self._kernel.runner.clock()
        found = self._quotas.get(who)
        if found is not None:
            found.set_limits(limits, now)
            return found
        if len(self._quotas) >= self._sweep_at:
            used = {quota for standing in self._standings.values() for quota in standing.chain}
            self._quotas = {name: one for name, one in self._quotas.items() if one in used or not one.idle(now)}
            self._sweep_at = max(_SWEEP, 2 * len(self._quotas))
        made = self._quotas[who] = Quota(who, limits, now)
        return made

    def changed(self, session_id: str) -> None:
        """A session ended, or its limits were lowered."""
        self._standings.pop(session_id, None)

    # ---- requests

    async def enter(self, request: Request) -> None:
        """Let a request begin: at once, or by policy as soon as its quotas allow it.

        Raises:
            OverQuota: a quota is used up and policy does not let requests wait.
            Busy: too many requests wait already.
        """
        chain = self.standing(request.session).chain
        if not chain:
            return
        over = first_over(chain, self._kernel.runner.clock())
        if over is not None and not self.standing(request.session).waits:
            raise OverQuota(
                over.text, what=over.what, limit=over.limit, retry_after_ms=over.retry_after_ms,
                reasons=[to_builtins(over.reason)],
            )  # fmt: skip
        if over is not None or chain in self._lines:
            await self._wait(request, chain, over)
        now = self._kernel.runner.clock()
        for quota in chain:
            quota.begin(now)
        self._under_way[request.id] = chain

    async def _wait(self, request: Request, chain: tuple[Quota, ...], over: Over | None) -> None:
        """Wait in line, in order of arrival, until nothing stands in the way."""
        kernel, limit = self._kernel, self._kernel.config.limits.queued_requests
        if limit and self._waiting >= limit:
            raise Busy(f"{limit} requests wait for their quotas already; try again later", retry_after_ms=1000)
        line = self._lines.setdefault(chain, Line())
        ahead = len(line.turns)
        told = over.text.partition(";")[0] if over is not None else f"{ahead} requests wait for {chain[-1].who} already"
        numbers = over.numbers if over is not None else {}
        reason = Reason(
            code="quota.waits", text=f"{told}; it waits", numbers={"ahead": ahead, **numbers},
            rule="over quota waits, in order of arrival",
        )  # fmt: skip
        request.decided(reason, [request.session.owner])
        self._waiting += 1
        try:
            while True:
                turn = line.turns[request.id] = kernel.runner.future()
                self._look(chain)
                await turn
                if first_over(chain, kernel.runner.clock()) is None:
                    return
        finally:
            self._waiting -= 1
            del line.turns[request.id]
            if line.turns:
                self._look(chain)
            else:
                self._look_away(line)
                del self._lines[chain]

    def _look(self, chain: tuple[Quota, ...]) -> None:
        """Tell the first in a line that it may go, or look again when that may be so."""
        line, now = self._lines[chain], self._kernel.runner.clock()
        self._look_away(line)
        over = first_over(chain, now)
        if over is None:
            next(iter(line.turns.values())).set(None)
        else:
            line.timer = self._kernel.runner.at(now + over.retry_ns, lambda: self._look(chain))

    def _look_away(self, line: Line) -> None:
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None

    def leave(self, request: Request) -> None:
        """A request has ended, however: it no longer counts as under way."""
        chain = self._under_way.pop(request.id, ())
        took = self._kernel.runner.clock() - request.arrived
        for quota in chain:
            quota.end(took)
        if chain and self._lines:
            for waiting in list(self._lines):
                if not set(chain).isdisjoint(waiting):
                    self._look(waiting)

    def tokens(self, request: Request, tokens: int) -> None:
        """A request that is under way read and wrote so many tokens."""
        now = self._kernel.runner.clock()
        for quota in self._under_way.get(request.id, ()):
            quota.spend("tokens_per_minute", tokens, now)

    def spent(self, event: Spent) -> None:
        """A driver reported device time of a request."""
        now = self._kernel.runner.clock()
        for quota in self._under_way.get(event.request, ()):
            quota.spend("device_seconds_per_day", -(-event.device_ns // 1000), now)

    # ---- bytes

    def check_bytes(self, owner: str, bytes: int, what: str, own_limit: int = 0, without: str = "") -> None:
        """Whether an owner may have so many more bytes of devices, in leases and in models that it loaded.

        `own_limit` is the session's own, 0 for none. `without` are weights whose bytes are asked for again.

        Raises:
            OverQuota: its user or its tenant would hold more than policy allows.
        """
        user, _, tenant = owner.partition("/")
        if not user:
            return
        config = self._kernel.config
        policies = (config.policy(int(user)), config.policy(int(user), tenant))
        of_user, of_owner = (policy.limits.device_bytes if policy is not None else 0 for policy in policies)
        mine = min((limit for limit in (of_owner, own_limit) if limit), default=0)
        for who, limit in ((user, of_user), (owner, mine)):
            held = self._held(who, without) if limit else 0
            if held + bytes > limit > 0:
                numbers: dict[str, Number] = {"limit": limit, "used": held, "needed": bytes, "who": who}
                have = f"{who} holds {size_text(held)} of the {size_text(limit)} that it may"
                text = f"{what} would take {size_text(bytes)}; {have}: free some first"
                reason = Reason(code="quota.over", text=text, numbers=numbers, rule="device_bytes")
                raise OverQuota(text, what="device_bytes", limit=limit, reasons=[to_builtins(reason)])

    def _held(self, who: str, without: str) -> int:
        """Bytes of leases and models of an owner, or of a user with all its tenants."""
        kernel = self._kernel
        rows = [(found.owner, found.bytes) for found in kernel.objects.values() if isinstance(found, LeaseObject)]
        rows += kernel.holdings.coming.values()
        models = [model for model in kernel.models.by_id.values() if model.host_id != without]
        rows += [(model.owner, kernel.ledger.held(model.host_id)) for model in models]
        return sum(held for owner, held in rows if owner == who or owner.startswith(f"{who}/"))
