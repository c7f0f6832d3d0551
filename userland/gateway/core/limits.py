"""How much one key may ask at a time and per minute. Tokens per minute are the kernel's own limit of its session.

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llmos.syscalls.errors import OverQuota

from .caller import Caller

MINUTE = 60.0
_MANY = 1000
"""So many keys are remembered before those that have used nothing for long are forgotten."""


@dataclass
class _Use:
    """What a key has under way, and what is left of its minute: a token bucket."""

    left: float
    at: float
    running: int = 0

    def fill(self, per_minute: int, now: float) -> None:
        self.left = min(self.left + (now - self.at) * per_minute / MINUTE, float(per_minute))
        self.at = now


class Limiter:
    """Counts requests by key.

    Args:
        per_key: how many requests any key may have under way, beside its own limit; 0 for no such bound.
    """

    def __init__(self, per_key: int = 0) -> None:
        self._per_key = per_key
        self._uses: dict[str, _Use] = {}

    @contextmanager
    def admit(self, caller: Caller, now: float) -> Iterator[None]:
        """Hold a place for one request.

        Raises:
            OverQuota: with `what`, `limit` and `retry_after_ms`; such a request counts for nothing.
        """
        use = self._take(caller, now)
        try:
            yield
        finally:
            use.running -= 1

    def running(self, key: str) -> int:
        """How many requests of a key are under way."""
        return self._uses[key].running if key in self._uses else 0

    def _take(self, caller: Caller, now: float) -> _Use:
        limits = caller.limits
        use = self._uses.get(caller.key)
        if use is None:
            self._forget(now)
            use = self._uses[caller.key] = _Use(float(limits.requests_per_minute), now)
        at_once = min((n for n in (limits.concurrent, self._per_key) if n), default=0)
        if at_once and use.running >= at_once:
            raise OverQuota(
                f"this key has {use.running} requests under way, which is its limit; wait for one to end",
                what="concurrent", limit=at_once, retry_after_ms=1000,
            )  # fmt: skip
        if per_minute := limits.requests_per_minute:
            use.fill(per_minute, now)
            if use.left < 1.0:
                wait_ms = int((1.0 - use.left) * MINUTE / per_minute * 1000) + 1
                raise OverQuota(
                    f"this key may make {per_minute} requests per minute; try again in {wait_ms} ms",
                    what="requests_per_minute", limit=per_minute, retry_after_ms=wait_ms,
                )  # fmt: skip
            use.left -= 1.0
        use.running += 1
        return use

    def _forget(self, now: float) -> None:
        """A bucket is full again after a minute: a key that was idle so long needs none."""
        if len(self._uses) >= _MANY:
            self._uses = {key: use for key, use in self._uses.items() if use.running or now - use.at < MINUTE}
