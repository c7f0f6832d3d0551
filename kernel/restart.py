"""When a process of the kernel's that ended is started again, and when it is declared failed.

The first restart comes at once, then after 1, 2, 4 ... 30 s (MINIX's reincarnation server); ten seconds of health
reset the back-off (Jupyter's stable_start_time); too many restarts within a period mean failed until reset (OTP's
intensity and period). Pure: `now` is monotonic nanoseconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from llmos.syscalls.types import Reason

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class RestartRules:
    """The constants of the policy, in seconds; `restarts` within `period_s` are allowed, one more is failure."""

    restarts: int = 5
    period_s: float = 120
    first_delay_s: float = 1
    max_delay_s: float = 30
    healthy_s: float = 10


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the process again at `at`, monotonic nanoseconds; it is the `attempt`-th time without health between."""

    at: int
    attempt: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The driver is failed until `reset`; `restarts` were tried within the period."""

    restarts: int
    cause: str
    reason: Reason


class RestartPolicy:
    """The restart policy of one process.

    Args:
        rules: its constants.
        what: what the reasons call it.
        again: what is to be done once it has failed.
    """

    def __init__(
        self,
        rules: RestartRules | None = None,
        what: str = "the driver",
        again: str = "control_object with action reset tries again",
    ) -> None:
        self._rules = rules or RestartRules()
        self._what = what
        self._again = again
        self._recent: deque[int] = deque()
        self._attempt = 0
        self._healthy_since: int | None = None
        self.failed = False
        self.restarts = 0
        """Restarts since the kernel started; never reset."""

    def exited(self, now: int, cause: str) -> Restart | GiveUp:
        """The process ended, or could not be started: what to do."""
        rules = self._rules
        self._healthy_since = None
        while self._recent and now - self._recent[0] >= rules.period_s * SECOND:
            self._recent.popleft()
        if self.failed or len(self._recent) >= rules.restarts:
            self.failed = True
            return self._give_up(cause)
        delay = 0.0
        if self._attempt:
            delay = min(rules.first_delay_s * 2 ** min(self._attempt - 1, 30), rules.max_delay_s)
        self._attempt += 1
        self._recent.append(now)
        self.restarts += 1
        reason = Reason(
            code="driver.restart",
            text=f"{self._what} ended ({cause}); it starts again " + (f"in {delay:g} s" if delay else "at once"),
            numbers={"delay_s": delay, "attempt": self._attempt, "recent": len(self._recent)},
            rule="first restart at once, then after growing pauses",
        )
        return Restart(now + int(delay * SECOND), self._attempt, reason)

    def requested(self, now: int) -> Restart:
        """The process was ended because somebody asked for a new one: no crash, and a fresh count of them."""
        self.reset()
        self.restarts += 1
        return Restart(now, 0, Reason(code="driver.restart", text="restarted on request", rule="it was asked for"))

    def healthy(self, now: int) -> None:
        """A sign of life of a driver that is ready; signs over long enough a time reset the pauses."""
        if self._healthy_since is None:
            self._healthy_since = now
        elif now - self._healthy_since >= self._rules.healthy_s * SECOND:
            self._attempt = 0

    def reset(self) -> None:
        """Forget all failures: an operator asked to try again."""
        self._recent.clear()
        self._attempt = 0
        self._healthy_since = None
        self.failed = False

    def _give_up(self, cause: str) -> GiveUp:
        restarts = self._rules.restarts
        reason = Reason(
            code="driver.failed",
            text=f"{self._what} ended ({cause}) after {restarts} restarts within {self._rules.period_s:g} s; "
            f"{self._again}",
            numbers={"restarts": restarts, "period_s": self._rules.period_s},
            rule=f"more than {self._rules.restarts} restarts within {self._rules.period_s:g} s",
        )
        return GiveUp(restarts, cause, reason)
