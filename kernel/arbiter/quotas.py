"""What a user, a tenant or a program may use in a time: allowances that fill at a rate, and how many requests at once.

The cost of a request is known only when it has ended, so an allowance may go into debt; then nothing new is let in
until it is paid. Pure: `now` is monotonic nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmos.syscalls.types import Limits, Number, Reason

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
DAY = 86_400 * SECOND
MICRO = 1_000_000
"""Device time is counted in microseconds."""

RATES = {
    "tokens_per_minute": (MINUTE, 1, "tokens per minute"),
    "requests_per_minute": (MINUTE, 1, "requests per minute"),
    "device_seconds_per_day": (DAY, MICRO, "seconds of devices per day"),
}
"""Of each limit that is a rate: its period, its unit in what is spent, and its name for people."""


class Allowance:
    """Fills at `amount` in `period_ns` and holds at most that much. Spending may overdraw it."""

    __slots__ = ("_amount", "_at", "_period", "_scaled")

    def __init__(self, amount: int, period_ns: int, now: int) -> None:
        if amount < 1:
            raise ValueError(f"an allowance of {amount}")
        self._amount = amount
        self._period = period_ns
        self._scaled = amount * period_ns
        self._at = now

    def resize(self, amount: int, now: int) -> None:
        """Another amount from now on. What is left or owed stays: asking for a smaller one fills nothing."""
        self._fill(now)
        self._amount = amount
        self._fill(now)

    def wait_ns(self, now: int) -> int:
        """How long until something is left to spend; 0 when there is now."""
        self._fill(now)
        return max(0, -(-(self._period - self._scaled) // self._amount))

    def spend(self, units: int, now: int) -> None:
        """Take what was used."""
        self._fill(now)
        self._scaled -= units * self._period

    def balance(self, now: int) -> int:
        """Whole units left; negative while in debt."""
        self._fill(now)
        return self._scaled // self._period

    def full(self, now: int) -> bool:
        """Whether it holds all that it can."""
        self._fill(now)
        return self._scaled == self._period * self._amount

    def _fill(self, now: int) -> None:
        """Exact integers: the balance is kept in units * nanoseconds of the period, so nothing is lost to rounding."""
        self._scaled = min(self._scaled + (now - self._at) * self._amount, self._period * self._amount)
        self._at = now


@dataclass(frozen=True, slots=True)
class Over:
    """A quota that is used up: whose, which, and when it pays to ask again."""

    who: str
    what: str
    limit: int
    used: float
    retry_ns: int

    @property
    def retry_after_ms(self) -> int:
        return -(-self.retry_ns // 1_000_000)

    @property
    def text(self) -> str:
        """What is used up, and what to do."""
        if self.what == "concurrent_requests":
            used = f"{self.who} has {self.used:g} requests under way, the limit is {self.limit}"
        else:
            used = f"the quota of {self.limit} {RATES[self.what][2]} of {self.who} is used up ({self.used:g} used)"
        return f"{used}; try again in {self.retry_after_ms} ms"

    @property
    def numbers(self) -> dict[str, Number]:
        return {"limit": self.limit, "used": self.used, "retry_after_ms": self.retry_after_ms, "who": self.who}

    @property
    def reason(self) -> Reason:
        """The refusal as a decision."""
        return Reason(code="quota.over", text=self.text, numbers=self.numbers, rule=self.what)


class Quota:
    """What one user, tenant or program has used of its limits."""

    __slots__ = ("_rates", "_took_ns", "limits", "running", "who")

    def __init__(self, who: str, limits: Limits, now: int) -> None:
        self.who = who
        self.limits = limits
        self.running = 0
        """Requests under way."""
        self._rates: dict[str, Allowance] = {}
        self._took_ns = 0
        self.set_limits(limits, now)

    def set_limits(self, limits: Limits, now: int) -> None:
        """Other limits from now on; what was used stays used."""
        self.limits = limits
        for what, (period, unit, _name) in RATES.items():
            amount = getattr(limits, what) * unit
            if not amount:
                self._rates.pop(what, None)
            elif what in self._rates:
                self._rates[what].resize(amount, now)
            else:
                self._rates[what] = Allowance(amount, period, now)

    def over(self, now: int) -> Over | None:
        """The limit that stands in the way of one more request for the longest time; None when none does."""
        worst: Over | None = None
        most = self.limits.concurrent_requests
        if most and self.running >= most:
            retry = min(max(self._took_ns // most, 100_000_000), MINUTE)
            worst = Over(self.who, "concurrent_requests", most, self.running, retry)
        for what, rate in self._rates.items():
            wait = rate.wait_ns(now)
            if wait and (worst is None or wait > worst.retry_ns):
                limit: int = getattr(self.limits, what)
                worst = Over(self.who, what, limit, limit - rate.balance(now) / RATES[what][1], wait)
        return worst

    def begin(self, now: int) -> None:
        """A request is let in."""
        self.running += 1
        self.spend("requests_per_minute", 1, now)

    def end(self, took_ns: int) -> None:
        """It has ended after so long."""
        self.running -= 1
        self._took_ns += (took_ns - self._took_ns) // 8 if self._took_ns else took_ns

    def spend(self, what: str, units: int, now: int) -> None:
        """Take from one of the rates, in its unit; nothing happens where there is no limit."""
        rate = self._rates.get(what)
        if rate is not None:
            rate.spend(units, now)

    def idle(self, now: int) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return not self.running and all(rate.full(now) for rate in self._rates.values())


def relevant(limits: Limits) -> tuple[int, ...]:
    """Those of the limits that are a matter of this module."""
    return limits.concurrent_requests, *(getattr(limits, what) for what in RATES)


def first_over(chain: Sequence[Quota], now: int) -> Over | None:
    """Of the quotas that one more request counts against, what stands in its way for the longest time."""
    found = [over for quota in chain if (over := quota.over(now)) is not None]
    return max(found, key=lambda over: over.retry_ns, default=None)
